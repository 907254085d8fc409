/** Schemas the access endpoints share. */
import { boolean, integer, object, optional, record, string } from '#base/schema/schema.ts'
import { userId } from '#base/schema/standard.ts'

export const comment = optional(string({ description: 'Note for people.', maxLength: 2048 }))
export const expire = optional(
  integer({
    description: 'Access ends at this time, in seconds since 1970; 0 never.',
    minimum: 0,
    maximum: 253_402_300_799,
  }),
)
export const groupList = (description: string) =>
  optional(string({ description, format: 'pve-groupid-list', maxLength: 4096 }))
export const groupId = string({ description: 'Name of the group.', format: 'pve-groupid', maxLength: 64 })
export const roleId = string({ description: 'Name of the role.', format: 'pve-roleid', maxLength: 64 })
export const privilegeList = optional(
  string({ description: 'Privileges of the role.', format: 'pve-priv-list', maxLength: 4096 }),
)
export const tokenId = string({
  description: 'Name of the token.',
  pattern: /[A-Za-z][A-Za-z0-9._-]+/,
  maxLength: 63,
})
export const newPassword = string({ description: 'New password.', minLength: 8, maxLength: 64, isSecret: true })

export const confirmation = string({
  description: 'Current password of the caller.',
  minLength: 5,
  maxLength: 64,
  isSecret: true,
})

export const userFacts = {
  comment,
  email: optional(string({ description: 'Mail address.', format: 'email-opt', maxLength: 254 })),
  enable: optional(boolean({ description: 'The user may log in.', default: true })),
  expire,
  firstname: optional(string({ description: 'First name.', maxLength: 1024 })),
  keys: optional(
    string({ description: 'Keys of older second factors.', pattern: /[0-9a-zA-Z!=]{0,4096}/, maxLength: 4096 }),
  ),
  lastname: optional(string({ description: 'Last name.', maxLength: 1024 })),
}

export const tokenFacts = {
  comment,
  expire,
  privsep: optional(
    boolean({ description: 'The token has rights of its own, within those of its user.', default: true }),
  ),
}
export const tokenInfo = object(tokenFacts)
export const user = userId

/** What whoever logs in gets; with `NeedTFA` it is half of a log-in. */
export const loggedIn = object({
  username: string(),
  ticket: optional(string()),
  CSRFPreventionToken: optional(string()),
  cap: optional(record()),
  clustername: optional(string()),
  NeedTFA: optional(integer()),
})
