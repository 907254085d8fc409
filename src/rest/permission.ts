/**
 * Judges `Permission` values.
 *
 * The parameters a path names are judged in their *checked* spelling, not as sent: otherwise `0100` would
 * be looked up as `/vms/0100`, where an ACL that forbids `/vms/100` does not reach, and then be executed
 * as 100. A path whose parameter was not given is held by nobody; the tempting way, an empty replacement,
 * would turn `/pool/{pool}` into `/pool` and let a pool's admin act outside any pool.
 */
import { Fault } from '#base/fault.ts'
import type { Identity, Judge, Permission } from './endpoint.ts'

export type Values = Readonly<Record<string, unknown>>

/** Names of all parameters a permission refers to. */
export function paramsOf(permission: Permission): string[] {
  switch (permission.kind) {
    case 'check':
    case 'modify':
      return [...permission.path.matchAll(/\{([\w-]+)\}/g)].map(([, name = '']) => name)
    case 'self':
      return [permission.param]
    case 'all':
    case 'any':
      return permission.of.flatMap(paramsOf)
    case 'world':
    case 'anyone':
    case 'root':
      return []
    default:
      return permission satisfies never
  }
}

/**
 * Passes, or says what is missing.
 * @param values checked values of the parameters the permission names
 * @throws Fault `denied`
 */
export async function demand(permission: Permission, values: Values, who: Identity, judge: Judge): Promise<void> {
  const refusal = await refusalOf(permission, values, who, judge)
  if (refusal) throw refusal
}

async function refusalOf(
  permission: Permission,
  values: Values,
  who: Identity,
  judge: Judge,
): Promise<Fault | undefined> {
  switch (permission.kind) {
    case 'world':
    case 'anyone':
      return undefined
    case 'root':
      return isRootInPerson(who, judge)
        ? undefined
        : denied('user != root@pam', 'Log in as root@pam; a token will not do.')
    case 'self':
      return isRootInPerson(who, judge) || who.authId === values[permission.param] ? undefined : denied()
    case 'modify':
      return refusalOnPath(permission.path, modifyPrivileges, 'any', values, who, judge)
    case 'check':
      return refusalOnPath(permission.path, () => permission.privileges, permission.needs, values, who, judge)
    case 'all':
      for (const part of permission.of) {
        const refusal = await refusalOf(part, values, who, judge)
        if (refusal) return refusal
      }
      return undefined
    case 'any':
      return refusalOfAll(permission.of, values, who, judge)
    default:
      return permission satisfies never
  }
}

/** Nothing when one alternative passes; else the first refusal that names a path, which says most. */
async function refusalOfAll(
  alternatives: readonly Permission[],
  values: Values,
  who: Identity,
  judge: Judge,
): Promise<Fault | undefined> {
  const refusals: Fault[] = []
  for (const part of alternatives) {
    const refusal = await refusalOf(part, values, who, judge)
    if (!refusal) return undefined
    refusals.push(refusal)
  }
  return refusals.find(({ remedy }) => remedy !== undefined) ?? denied()
}

async function refusalOnPath(
  template: string,
  privilegesOf: (path: string) => readonly string[],
  needs: 'all' | 'any',
  values: Values,
  who: Identity,
  judge: Judge,
): Promise<Fault | undefined> {
  if (isRootInPerson(who, judge)) return undefined
  const path = filled(template, values)
  if (path === undefined) return denied()
  const privileges = privilegesOf(path)
  const held = await judge.privilegesOn(who, path)
  if (needs === 'any') {
    return privileges.some((privilege) => held.has(privilege)) ? undefined : deniedOn(path, privileges, who)
  }
  const lacking = privileges.find((privilege) => !held.has(privilege))
  return lacking === undefined ? undefined : deniedOn(path, [lacking], who)
}

function isRootInPerson(who: Identity, judge: Judge): boolean {
  return who.token === undefined && judge.isRoot(who)
}

/** What changing permissions on a path takes: the right itself, or being the one who makes objects there. */
function modifyPrivileges(path: string): readonly string[] {
  const [, kind, name] = path.split('/')
  const maker = { storage: 'Datastore.Allocate', vms: 'VM.Allocate', pool: 'Pool.Allocate' }[kind ?? '']
  return name !== undefined && maker !== undefined ? ['Permissions.Modify', maker] : ['Permissions.Modify']
}

/** The path with its parameters put in and its slashes tidied; nothing when a parameter is absent. */
function filled(template: string, values: Values): string | undefined {
  let isWhole = true
  const path = template.replace(/\{([\w-]+)\}/g, (_, name: string) => {
    const value = Object.hasOwn(values, name) ? values[name] : undefined
    if (typeof value === 'number' || (typeof value === 'string' && value !== '')) return String(value)
    isWhole = false
    return ''
  })
  return isWhole ? `/${path.split('/').filter(Boolean).join('/')}` : undefined
}

function deniedOn(path: string, privileges: readonly string[], who: Identity): Fault {
  return denied(
    `${path}, ${privileges.join('|')}`,
    `${who.authId} needs a role with ${privileges.join(' or ')} on ${path}.`,
  )
}

function denied(detail?: string, remedy?: string): Fault {
  const text = detail === undefined ? 'Permission check failed' : `Permission check failed (${detail})`
  return new Fault('denied', text, remedy === undefined ? {} : { remedy })
}

/** Answer to a token where only a person in the flesh will do. */
export function refusedToken(): Fault {
  return denied('not available with an API token, need a proper ticket', 'Log in with a password.')
}
