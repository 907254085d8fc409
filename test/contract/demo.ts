/**
 * A node around the demo endpoints for testing the edge, real in all but what it does. Real sockets, real TLS, real dispatcher; rights and logins are tables.
 */
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import type { Server } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { apiDocuments } from '#http/documents.ts'
import type { ApiServerOptions } from '#http/edge.ts'
import { createFrontServer } from '#http/front-server.ts'
import { localUsers } from '#http/peer.ts'
import { createApiServer } from '#http/server.ts'
import type { Authenticator } from '#http/session.ts'
import { createSpool, type Spool } from '#http/spool.ts'
import { ensureCertificate } from '#cluster/self-signed.ts'
import { closeServer, listenOnSocket } from '#http/unix-socket.ts'
import { type CallFacts, createDispatcher, type Dispatcher } from '#rest/dispatch.ts'
import type { Endpoint, Judge } from '#rest/endpoint.ts'
import { demoEndpoints } from './demo-endpoints.ts'

/** ACLs of the demo: who holds what where. Roots hold everything. */
export const demoRights: Record<string, Record<string, readonly string[]>> = {
  'ann@pve': { '/vms/100': ['VM.Audit'], '/pool/dev': ['VM.Allocate'], '/': ['Sys.Audit'] },
  'bob@pve': { '/vms': ['VM.Audit'], '/storage/local': ['Datastore.AllocateTemplate'], '/access/groups': [] },
  'powerless@pve': {},
  'root@pam!ci': { '/': ['Sys.Audit', 'Sys.Modify', 'VM.Audit'] },
}

export const demoJudge: Judge = {
  isRoot: ({ user }) => user === 'root@pam',
  privilegesOn: async ({ authId }, path) => {
    // `bob` sees all guests but 100, as an ACL with NoAccess would have it.
    if (authId === 'bob@pve' && /^\/vms\/(?!100$)/.test(path)) return new Map([['VM.Audit', true]])
    return new Map((demoRights[authId]?.[path] ?? []).map((name) => [name, true]))
  },
}

/** Tickets are `PVE:<user>:good`, secrets are `letmein`, the CSRF token is `csrf of <user>`. */
export const demoAuthenticator: Authenticator = {
  ticket(text) {
    const user = /^PVE:([^:]+):good\+\/=$/.exec(text)?.[1]
    if (user === undefined) throw new Fault('unauthenticated', 'permission denied - invalid PVE ticket')
    return { user, authId: user }
  },
  async token(text) {
    const [, user, name] = /^([^!]+)!([^=]+)=letmein$/.exec(text) ?? []
    if (user === undefined || name === undefined) throw new Fault('unauthenticated', 'invalid token value!')
    return { user, token: `${user}!${name}`, authId: `${user}!${name}` }
  },
  csrf: ({ user }, header) => header === csrfOf(user),
}
export const ticketOf = (user: string): string => `PVE:${user}:good+/=`
export const csrfOf = (user: string): string => `csrf of ${user}`

export interface DemoLog {
  readonly lines: string[]
}

export function demoDispatcher(
  log: DemoLog = { lines: [] },
  endpoints: readonly Endpoint<CallFacts>[] = demoEndpoints,
): Dispatcher {
  return createDispatcher<CallFacts>({
    endpoints,
    judge: demoJudge,
    makeCall: (facts) => facts,
    node: 'demo',
    log: createLog((line) => log.lines.push(line), 'debug'),
    random: systemRandom,
  })
}

export interface Demo extends AsyncDisposable {
  readonly directory: string
  readonly apiSocket: string
  readonly frontSocket: string
  readonly url: string
  readonly port: number
  readonly certificate: string
  readonly spool: Spool
  readonly log: DemoLog
  readonly daemon: Server
}

export interface DemoOptions {
  readonly failedLoginMs?: number
  readonly uid?: number
  readonly changes?: Partial<ApiServerOptions>
  readonly staticDir?: string
  readonly headersTimeoutMs?: number
  /** Default: one of the node's own, opened here. */
  readonly spool?: Spool
  /** Lets the front keep replies. */
  readonly mark?: () => string
}

/** Daemon with both sockets, and a front before it, all in this process. Ends with the scope. */
export async function demoNode({
  failedLoginMs = 0,
  uid = process.getuid?.() ?? 0,
  changes = {},
  staticDir,
  headersTimeoutMs = 15_000,
  spool: given,
  mark,
}: DemoOptions = {}): Promise<Demo> {
  await using undo = new AsyncDisposableStack()
  const directory = await mkdtemp(join(tmpdir(), 'hako-demo-'))
  undo.defer(() => rm(directory, { recursive: true, force: true }))
  const log: DemoLog = { lines: [] }
  const spool = given ?? createSpool({ directory: join(directory, 'upload'), uid, random: systemRandom })
  if (!given) await spool.open()
  const shared = {
    dispatcher: demoDispatcher(log),
    authenticator: demoAuthenticator,
    peerCredentials: () => ({ pid: 1, uid, gid: uid }),
    spool,
    clock: systemClock,
    log: createLog((line) => log.lines.push(line), 'debug'),
    failedLoginMs,
    documents: apiDocuments(demoEndpoints, { title: 'Demo', version: '1' }),
    ...changes,
  }
  const users = localUsers(async (user) => user === 'ann@pam')
  const ofTask = async (upid: string) =>
    upid === 'UPID:of-ann' ? { user: 'ann@pve', authId: 'ann@pve', task: upid } : undefined
  const local = createApiServer({ ...shared, origin: { kind: 'local', users, ofTask } })
  const daemon = createApiServer({ ...shared, origin: { kind: 'front', uid } })
  const [apiSocket, frontSocket] = [join(directory, 'api.sock'), join(directory, 'front.sock')]
  await listenOnSocket(local, { path: apiSocket, mode: 0o666 })
  undo.defer(() => closeServer(local, 100))
  await listenOnSocket(daemon, { path: frontSocket, mode: 0o600 })
  undo.defer(() => closeServer(daemon, 100))
  const { key, certificate } = await ensureCertificate({ directory: join(directory, 'keys'), node: 'demo' })
  const front = createFrontServer({
    key,
    certificate,
    host: '127.0.0.1',
    port: 0,
    daemonSocket: frontSocket,
    uploadDir: spool.incoming,
    node: 'demo',
    headersTimeoutMs,
    log: shared.log,
    clock: shared.clock,
    ...(mark ? { mark } : {}),
    ...(staticDir === undefined ? {} : { staticDir }),
  })
  front.listen(0, '127.0.0.1')
  await once(front, 'listening')
  undo.defer(() => closeServer(front, 100))
  const address = front.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  const release = undo.move()
  return {
    directory,
    apiSocket,
    frontSocket,
    url: `https://127.0.0.1:${port}`,
    port,
    certificate,
    spool,
    log,
    daemon,
    [Symbol.asyncDispose]: () => release.disposeAsync(),
  }
}
