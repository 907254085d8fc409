/** What stands in the frames: a call's head, a reply's head. Read with suspicion, for the other side may have been taken over. */
import type { WireReply } from '#rest/reply.ts'
import type { ProofHeaders } from './session.ts'

/** A request without a body, as the front met it. It judges none of this. */
export interface LinkCall {
  readonly method: string
  /** Path and query as sent. */
  readonly target: string
  readonly remoteAddress: string
  /** The client can read a body in gzip. */
  readonly takesGzip: boolean
  /** Those that say who calls. */
  readonly headers: ProofHeaders
}

export type LinkReply = Omit<WireReply, 'body' | 'packed' | 'kind'> & {
  readonly body: Uint8Array
  /** The body is in gzip already. */
  readonly isPacked?: boolean
}

/** What is not text is left out; JSON then leaves out what is absent. */
export function proofIn(headers: Readonly<Record<string, unknown>>): ProofHeaders {
  const text = (value: unknown) => (typeof value === 'string' ? value : undefined)
  return {
    cookie: text(headers.cookie),
    authorization: text(headers.authorization),
    csrfpreventiontoken: text(headers.csrfpreventiontoken),
  }
}

/** @throws Error when it is no call */
export function callFrom(head: unknown): LinkCall {
  const { method, target, remoteAddress, takesGzip, headers } = fieldsOf(head)
  if (typeof method !== 'string' || typeof target !== 'string' || typeof remoteAddress !== 'string')
    throw new Error('this is no call')
  return { method, target, remoteAddress, takesGzip: takesGzip === true, headers: proofIn(fieldsOf(headers)) }
}

export function replyHead(
  { status, reason, contentType, headers }: WireReply,
  isPacked: boolean,
): Omit<LinkReply, 'body'> {
  return { status, reason, contentType, ...(headers ? { headers } : {}), ...(isPacked ? { isPacked } : {}) }
}

/** The daemon is believed: it has every right the front has, and more. */
export function replyFrom(head: unknown, body: Uint8Array): LinkReply {
  return { ...(head as Omit<LinkReply, 'body'>), body }
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
}
