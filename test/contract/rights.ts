/**
 * The rights of a whole API, endpoint by endpoint, with no list of exceptions: without a login 401, with a
 * login that holds nothing 403. Where any login will do, the endpoint must filter: it may answer a read, it
 * may refuse, but it must not change anything for somebody without rights.
 */
import type { Permission } from '#rest/endpoint.ts'
import { type Caller, callOf, type ContractReply, type Described, gather, type Known, samplesOf } from './samples.ts'

export interface Guarded extends Described {
  readonly permission: Permission
}

export interface RightsFacts {
  /** Sends no proof of identity. */
  readonly asNobody: Caller
  /** Logged in as a user who holds no role anywhere and is not `sample@pve`. */
  readonly asPowerless: Caller
  readonly known: Known
}

/** @returns what is wrong, one sentence each; empty is good */
export async function rightsFindings(endpoints: readonly Guarded[], facts: RightsFacts): Promise<string[]> {
  return gather(endpoints, async (endpoint) => {
    const call = callOf(endpoint, samplesOf(endpoint.params, facts.known))
    const openTo = opensTo(endpoint.permission)
    const name = `${endpoint.method} ${endpoint.path}`
    const stranger = strangerFinding(openTo, await facts.asNobody(call))
    const powerless = openTo === 'world' ? undefined : powerlessFinding(openTo, endpoint, await facts.asPowerless(call))
    return [stranger, powerless].flatMap((finding) => (finding === undefined ? [] : [`${name}: ${finding}`]))
  })
}

type Opening = 'world' | 'anyone' | 'few'

/** The loosest way in. */
function opensTo(permission: Permission): Opening {
  switch (permission.kind) {
    case 'world':
    case 'anyone':
      return permission.kind
    case 'any':
      return permission.of.map(opensTo).toSorted(byTightness)[0] ?? 'few'
    case 'all':
      return permission.of.map(opensTo).toSorted(byTightness).at(-1) ?? 'anyone'
    case 'root':
    case 'check':
    case 'self':
    case 'modify':
      return 'few'
    default:
      return permission satisfies never
  }
}

const byTightness = (a: Opening, b: Opening): number => tightness[a] - tightness[b]
const tightness = { world: 0, anyone: 1, few: 2 } as const

function strangerFinding(openTo: Opening, reply: ContractReply): string | undefined {
  const isTurnedAway = reply.status === 401 && messageOf(reply).startsWith('No ticket')
  if (openTo === 'world') return isTurnedAway ? 'is open to the world and asks for a login' : bugFinding(reply)
  return isTurnedAway ? undefined : `answers ${told(reply)} without a login instead of 401`
}

function powerlessFinding(openTo: Opening, { method }: Described, reply: ContractReply): string | undefined {
  if (openTo === 'few') {
    const isDenied = reply.status === 403 && messageOf(reply).startsWith('Permission check failed')
    return isDenied ? undefined : `answers ${told(reply)} to a user without rights instead of 403`
  }
  if (reply.status === 401) return 'does not know a user who is logged in'
  if (reply.status < 300 && method !== 'GET') return `did what a user without rights asked: ${told(reply)}`
  return bugFinding(reply)
}

/** A fault says its kind and is meant; a bug hides behind a reference. */
export function bugFinding(reply: ContractReply): string | undefined {
  const isBug = reply.status >= 500 && (reply.body.kind === undefined || messageOf(reply).startsWith('internal error'))
  return isBug ? `has a bug: ${told(reply)}` : undefined
}

export function messageOf({ body }: ContractReply): string {
  return typeof body.message === 'string' ? body.message : ''
}

export function told(reply: ContractReply): string {
  return `${reply.status} '${messageOf(reply).trimEnd()}'${reply.body.errors === undefined ? '' : ` ${JSON.stringify(reply.body.errors)}`}`
}
