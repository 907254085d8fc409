/**
 * Who calls, from the headers of a request: cookie, then `Authorization: PVEAuthCookie=`, then an API token.
 *
 * Every call with a ticket that is not a GET needs the CSRF header as well; tokens never travel by
 * themselves from a browser and are exempt, as is the upload, which browsers send as a plain form. Knows
 * neither keys nor users: the access service stands behind `Authenticator`.
 */
import { Fault } from '#base/fault.ts'
import type { Identity } from '#rest/endpoint.ts'
import { bounds } from './bounds.ts'
import type { EdgeContext } from './edge.ts'

export interface Authenticator {
  /** @throws Fault `unauthenticated`, `permission denied - invalid PVE ticket` */
  readonly ticket: (text: string) => Identity | Promise<Identity>
  /** @param text `user@realm!name=secret` @throws Fault `unauthenticated` */
  readonly token: (text: string) => Promise<Identity>
  /** Whether the CSRF token belongs to the user and is not too old. */
  readonly csrf: (identity: Identity, header: string) => boolean
}

export type Credentials =
  | { readonly kind: 'ticket'; readonly text: string }
  | { readonly kind: 'token'; readonly text: string }

/** What the request offers as proof, unproven. */
export function credentialsOf(headers: ProofHeaders): Credentials | undefined {
  const cookie = /(?:^|[;\s])PVEAuthCookie=([^;]*)/.exec(headers.cookie ?? '')?.[1]
  if (cookie !== undefined && cookie !== '') return { kind: 'ticket', text: unescapeTicket(cookie.trim()) }
  const header = headers.authorization ?? ''
  const ticket = /^PVEAuthCookie=(.+)$/.exec(header)?.[1]
  if (ticket !== undefined) return { kind: 'ticket', text: unescapeTicket(ticket.trim()) }
  const token = /^PVEAPIToken[= ]\s*(\S+)$/.exec(header)?.[1]
  return token === undefined ? undefined : { kind: 'token', text: token }
}

/** Tickets arrive raw and escaped; a `+` is part of the signature and stays. */
function unescapeTicket(text: string): string {
  if (!text.includes('%')) return text
  try {
    return decodeURIComponent(text)
  } catch {
    return text // Not an escape: the raw text will be judged, and fail if it is no ticket.
  }
}

/** The headers that say who calls. */
export interface ProofHeaders {
  readonly cookie?: string | undefined
  readonly authorization?: string | undefined
  readonly csrfpreventiontoken?: string | readonly string[] | undefined
}

export interface SessionFacts {
  readonly headers: ProofHeaders
  readonly method: string
  readonly isUpload: boolean
}

/**
 * Nobody when the request offers no proof.
 * @throws Fault `unauthenticated`
 */
export async function identityFrom(
  { headers, method, isUpload }: SessionFacts,
  authenticator: Authenticator,
): Promise<Identity | undefined> {
  const credentials = credentialsOf(headers)
  if (!credentials) return undefined
  if (credentials.kind === 'token') return authenticator.token(credentials.text)
  const identity = await authenticator.ticket(credentials.text)
  if (method === 'GET' || isUpload) return identity
  const header = headers.csrfpreventiontoken
  if (typeof header === 'string' && authenticator.csrf(identity, header)) return identity
  throw new Fault('unauthenticated', 'Permission denied - invalid csrf token')
}

/** Guessing is slow: a failed login is answered a fixed time after its request began. */
export async function afterFailedLogin(
  startedMs: number,
  { clock, failedLoginMs = bounds.failedLoginMs }: Pick<EdgeContext, 'clock' | 'failedLoginMs'>,
): Promise<void> {
  await clock.sleep(Math.max(0, failedLoginMs - (clock.monotonic() - startedMs)))
}

export function noTicket(): Fault {
  return new Fault('unauthenticated', 'No ticket', {
    remedy: 'Log in by POST /access/ticket, or send an API token.',
  })
}
