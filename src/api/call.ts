/** What a handler gets beside its checked parameters, and the `endpoint` factory bound to it. */
import type { Operation } from '#tasks/operation.ts'
import type { FurtherCall } from '#rest/dispatch.ts'
import type { Identity } from '#rest/endpoint.ts'
import { endpointsOf } from '#rest/endpoint.ts'
import type { WireReply } from '#rest/reply.ts'
import type { NodeServices } from '#services.ts'

export interface Call {
  readonly who: Identity
  readonly services: NodeServices
  /** Starts a task and returns its UPID. The operation must be in `operations/all.ts`. */
  readonly start: <P, D>(operation: Operation<P, D>, params: P) => Promise<string>
  /** True when the caller holds all the privileges on the path; for filtering lists. */
  readonly may: (path: string, ...privileges: readonly string[]) => Promise<boolean>
  /** Another call by the same caller, judged as if it had come from outside. Never rejects. */
  readonly again: (call: FurtherCall) => Promise<WireReply>
  /** Fires when the client goes away or the daemon stops. */
  readonly signal: AbortSignal
  /** IP address of the client; empty on the local socket. */
  readonly remoteAddress: string
  /** Name or address the client reaches this node by; absent where that is not known. */
  readonly host?: string | undefined
}

export const endpoint = endpointsOf<Call>()
