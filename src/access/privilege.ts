/**
 * The closed list of privileges, by category and by who typically holds them.
 *
 * The sets per category are the source of the built-in roles (`role.ts`), so a new privilege lands in the
 * right roles by standing in the right row. Names are the wire's. Rejected: privileges as free text, which
 * turns a typing mistake in a permission into a right nobody can ever hold.
 */
import { invalid } from '#base/fault.ts'

interface PrivilegeSets {
  /** Changes what exists. */
  readonly admin: readonly string[]
  /** Works with what exists. */
  readonly user: readonly string[]
  /** Looks. */
  readonly audit: readonly string[]
  /** In no role but `Administrator`. */
  readonly root: readonly string[]
}

export const privilegeSets = {
  VM: {
    admin: [
      'VM.Allocate',
      'VM.Clone',
      'VM.Config.CPU',
      'VM.Config.Disk',
      'VM.Config.HWType',
      'VM.Config.Memory',
      'VM.Config.Network',
      'VM.Config.Options',
      'VM.GuestAgent.Unrestricted',
      'VM.Migrate',
      'VM.Replicate',
      'VM.Snapshot',
      'VM.Snapshot.Rollback',
    ],
    user: [
      'VM.Backup',
      'VM.Config.CDROM',
      'VM.Config.Cloudinit',
      'VM.Console',
      'VM.GuestAgent.FileRead',
      'VM.GuestAgent.FileSystemMgmt',
      'VM.GuestAgent.FileWrite',
      'VM.PowerMgmt',
    ],
    audit: ['VM.Audit', 'VM.GuestAgent.Audit'],
    root: [],
  },
  Sys: {
    admin: ['Sys.Console', 'Sys.Syslog'],
    user: [],
    audit: ['Sys.Audit'],
    root: ['Permissions.Modify', 'Sys.AccessNetwork', 'Sys.Incoming', 'Sys.Modify', 'Sys.PowerMgmt'],
  },
  Datastore: {
    admin: ['Datastore.Allocate', 'Datastore.AllocateTemplate'],
    user: ['Datastore.AllocateSpace'],
    audit: ['Datastore.Audit'],
    root: [],
  },
  SDN: { admin: ['SDN.Allocate'], user: ['SDN.Use'], audit: ['SDN.Audit'], root: [] },
  User: {
    admin: ['Group.Allocate', 'Realm.AllocateUser', 'User.Modify'],
    user: [],
    audit: [],
    root: ['Realm.Allocate'],
  },
  Pool: { admin: ['Pool.Allocate'], user: ['Pool.Audit'], audit: ['Pool.Audit'], root: [] },
  Mapping: { admin: ['Mapping.Modify'], user: ['Mapping.Use'], audit: ['Mapping.Audit'], root: [] },
} as const satisfies Readonly<Record<string, PrivilegeSets>>

export type PrivilegeCategory = keyof typeof privilegeSets
type Sets = (typeof privilegeSets)[PrivilegeCategory]
export type Privilege = Sets[keyof Sets][number]

const setsOf: readonly { readonly [K in keyof Sets]: readonly Privilege[] }[] = Object.values(privilegeSets)

/** Every privilege there is, sorted. */
export const privileges: readonly Privilege[] = [
  ...new Set(setsOf.flatMap(({ admin, user, audit, root }) => [...admin, ...user, ...audit, ...root])),
].toSorted()

export function isPrivilege(name: string): name is Privilege {
  return (privileges as readonly string[]).includes(name)
}

/** Names checked against the closed list, without repeats. @throws Fault `invalid` naming `field`. */
export function asPrivileges(names: readonly string[], field = 'privs'): Privilege[] {
  const known = names.filter(isPrivilege)
  const wrong = names.find((name) => !isPrivilege(name))
  if (wrong !== undefined) throw invalid({ [field]: `invalid format - invalid privilege '${wrong}'` })
  return [...new Set(known)].toSorted()
}
