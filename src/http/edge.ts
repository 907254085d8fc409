/** What a socket's server is made of, and what it knows while it serves. */
import type { Duplex } from 'node:stream'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import type { Dispatcher } from '#rest/dispatch.ts'
import type { Identity } from '#rest/endpoint.ts'
import type { LocalUsers, PeerCredentials } from './peer.ts'
import type { Authenticator } from './session.ts'
import type { Spool } from './spool.ts'
import type { ClaimUpgrade } from './websocket.ts'

export type Origin =
  | { readonly kind: 'local'; readonly users: LocalUsers; readonly ofTask?: OfTask }
  | { readonly kind: 'front'; readonly uid: number }

/** Who started a task that still runs; nobody when that one may no longer act. */
export type OfTask = (upid: string) => Promise<Identity | undefined>

/** Something served as it is, without login: the API's own descriptions. */
export interface Document {
  readonly contentType: string
  readonly body: () => string
}

export interface ApiServerOptions {
  readonly dispatcher: Dispatcher
  readonly authenticator: Authenticator
  readonly origin: Origin
  readonly peerCredentials: PeerCredentials
  readonly spool: Spool
  readonly clock: Clock
  readonly log: Log
  /** By path, for instance `/openapi.json`. */
  readonly documents?: Readonly<Record<string, Document>>
  readonly claimUpgrade?: ClaimUpgrade
  /** The guest of a viewer's ticket: gives it a connection. @throws Fault when the ticket does not hold */
  readonly takeSpice?: (ticket: string, port: number) => Promise<(channel: Duplex) => void>
  /** A failed login is answered this long after its request began. */
  readonly failedLoginMs?: number
  /** A request must have arrived whole within this time. */
  readonly requestTimeoutMs?: number
}

/** What one socket's server knows while it serves. */
export interface EdgeContext extends ApiServerOptions {
  /** Uid at the other end of each connection. */
  readonly peers: WeakMap<object, number>
}
