/** What stands in the frames: a call's head, a reply's head. Read with suspicion, for the other side may have been taken over. */
import type { Keep, WireReply } from '#rest/reply.ts'
import type { ProofHeaders } from './session.ts'

/** A request without a body, as the front met it. It judges none of this. */
export interface LinkCall {
  readonly method: string
  /** Path and query as sent. */
  readonly target: string
  readonly remoteAddress: string
  /** Those that say who calls. */
  readonly headers: ProofHeaders
}

export type LinkReply = Omit<WireReply, 'body' | 'keep' | 'kind' | 'stream'> & {
  readonly body: Uint8Array
  /** The front may give it again. */
  readonly keep?: LinkKeep
  /** No answer yet: it is to be asked for as HTTP. */
  readonly isElsewhere?: true
}

export interface LinkKeep extends Omit<Keep, 'given'> {
  /** Number of the call it answered: under it the front says how often it was given again. */
  readonly id: number
}

/** How often a kept reply was given again to whom. */
export interface Given {
  readonly times: number
  readonly remoteAddress: string
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
  const { method, target, remoteAddress, headers } = fieldsOf(head)
  if (typeof method !== 'string' || typeof target !== 'string' || typeof remoteAddress !== 'string')
    throw new Error('this is no call')
  return { method, target, remoteAddress, headers: proofIn(fieldsOf(headers)) }
}

/** @throws Error when it is none */
export function givenFrom(head: unknown): Given {
  const { times, remoteAddress } = fieldsOf(head)
  if (typeof times !== 'number' || !Number.isSafeInteger(times) || times < 1 || typeof remoteAddress !== 'string')
    throw new Error('this says nothing of a kept reply')
  return { times, remoteAddress }
}

export function replyHead(
  { status, reason, contentType, headers, keep }: WireReply,
  id: number,
): Omit<LinkReply, 'body'> {
  const kept = keep && { mark: keep.mark, until: keep.until, id }
  return { status, reason, contentType, ...(headers ? { headers } : {}), ...(kept ? { keep: kept } : {}) }
}

/** The daemon is believed: it has every right the front has, and more. */
export function replyFrom(head: unknown, body: Uint8Array): LinkReply {
  return { ...(head as Omit<LinkReply, 'body'>), body }
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
}
