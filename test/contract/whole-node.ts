/**
 * A node in this process: every real service and the real HTTP server over the real list of endpoints, as
 * the daemon puts them together, but for one number: a failed login is answered at once, because a test of all
 * endpoints would otherwise wait three seconds for each.
 */
import assert from 'node:assert/strict'
import { chmod, mkdir, mkdtemp } from 'node:fs/promises'
import { join } from 'node:path'
import { AccessService } from '#access/service.ts'
import { makeCall } from '#api/make-call.ts'
import { allEndpoints } from '#api/root.ts'
import { createLog } from '#base/log.ts'
import { machine } from '#host/exec.ts'
import { peerCredentials } from '#host/native.ts'
import { createApiServer } from '#http/server.ts'
import { createSpool } from '#http/spool.ts'
import { closeServer, listenOnSocket } from '#http/unix-socket.ts'
import { takeDown } from '#lab/down.ts'
import { allOperations } from '#operations/all.ts'
import { type ApiClient, apiClient } from '#rest/client.ts'
import { createDispatcher } from '#rest/dispatch.ts'
import type { Transport } from '#rest/client.ts'
import { unixTransport } from '#rest/transport.ts'
import { TaskService } from '#tasks/service.ts'
import { prepareNode } from '../../src/prepare-node.ts'
import { buildServices, type NodeServices } from '../../src/services.ts'
import type { Settings } from '../../src/settings.ts'
import { confirmed } from '../fixtures/confirmed-keys.ts'
import { freshInstance } from '../own-names.ts'
import { untilEnded } from '../task-end.ts'

export interface WholeNode extends AsyncDisposable {
  readonly settings: Settings
  /** The node's socket. Whoever sends no other proof is root there. */
  readonly asRoot: Transport
  /** The socket the front speaks to: nobody is anybody without a ticket or a token. */
  readonly asFront: Transport
  readonly api: ApiClient<never>['raw']
  /** Waits until the task has ended. */
  readonly ended: (upid: unknown) => Promise<string>
  /** Lines of the log that tell of a bug. */
  readonly bugs: () => string[]
}

const root = join(import.meta.dirname, '../..')

/** @param changes settings that differ, such as a root of its own for the machine's files */
export async function wholeNode(changes: Partial<Settings> = {}): Promise<WholeNode> {
  await using undo = new AsyncDisposableStack()
  const settings = { ...(await settingsOfItsOwn()), ...changes }
  undo.defer(() => takeDown({ settings, host: machine() }).then(() => {}))
  const lines: string[] = []
  const log = createLog((line) => lines.push(line))
  const services = await buildServices(settings, { log, isStoreChecked: true })
  undo.use(services.store)
  await confirmed(services.nodeKeys)
  const keysDir = join(settings.stateDir, 'keys')
  const access = new AccessService({ ...services, keysDir })
  const workerEntry = join(root, 'src/worker.ts')
  const tasks = undo.use(new TaskService({ ...services, workerEntry, operations: allOperations }))
  const node: NodeServices = { ...services, access, tasks }
  await prepareNode(node)
  const [asRoot, asFront] = await listen(node, undo)
  const api = apiClient<never>(asRoot).raw
  const release = undo.move()
  return {
    settings,
    asRoot,
    asFront,
    api,
    async ended(upid) {
      const path = `/nodes/${settings.node}/tasks/${encodeURIComponent(String(upid))}/status`
      await untilEnded(settings, String(upid), 60_000)
      const { status, exitstatus } = (await api('GET', path)).data as { status: string; exitstatus?: string }
      assert.equal(status, 'stopped')
      return exitstatus ?? ''
    },
    bugs: () => lines.filter((line) => line.includes('"level":"error"')),
    [Symbol.asyncDispose]: () => release.disposeAsync(),
  }
}

async function listen(node: NodeServices, undo: AsyncDisposableStack): Promise<[Transport, Transport]> {
  const { settings, access, clock, random, log } = node
  const uid = process.getuid?.()
  assert.equal(uid, 0, 'a node is root: run this test as root')
  const spool = createSpool({ directory: join(settings.stateDir, 'upload'), uid, random })
  await spool.open()
  const shared = {
    dispatcher: createDispatcher({
      endpoints: allEndpoints,
      judge: access,
      makeCall: makeCall(node),
      node: settings.node,
      log,
      random,
    }),
    authenticator: {
      ticket: (text: string) => access.ticketIdentity(text),
      token: (text: string) => access.tokenIdentity(text),
      csrf: (...proof: Parameters<AccessService['csrfIsValid']>) => access.csrfIsValid(...proof),
    },
    peerCredentials,
    spool,
    clock,
    log,
    failedLoginMs: 0,
  }
  const served = async (name: string, origin: Parameters<typeof createApiServer>[0]['origin']) => {
    const server = createApiServer({ ...shared, origin })
    const path = join(settings.runDir, name)
    await listenOnSocket(server, { path, mode: 0o600 })
    undo.defer(() => closeServer(server, 100))
    return undo.use(unixTransport(path)).send
  }
  const local = { kind: 'local', users: async () => ({ user: 'root@pam', authId: 'root@pam' }) } as const
  return [await served('api.sock', local), await served('front.sock', { kind: 'front', uid })]
}

/** No bridge of its own: nothing here is plugged in. */
async function settingsOfItsOwn(): Promise<Settings> {
  const instance = freshInstance('w')
  const stateDir = await mkdtemp(`/var/tmp/hako-${instance}-`)
  await chmod(stateDir, 0o711)
  await mkdir('/run/hakobune-test', { recursive: true, mode: 0o711 })
  return {
    instance,
    node: 'wholenode',
    stateDir,
    runDir: `/run/hakobune-test/${instance}`,
    cacheDir: '/var/cache/hakobune',
    apiHost: '127.0.0.1',
    apiPort: 0,
    bridge: 'none',
    uidBase: 1_000_000_000,
  }
}
