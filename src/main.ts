/**
 * The daemon of a node: reads as its boot order.
 *
 * Guests and tasks do not need it to stay alive; it comes back, finds both, and goes on. Everything it
 * opens is closed by scope, in reverse.
 */
import { join } from 'node:path'
import { AccessService } from '#access/service.ts'
import { makeCall } from '#api/make-call.ts'
import { allEndpoints } from '#api/root.ts'
import { messageOf } from '#base/fault.ts'
import { createLog, type Log } from '#base/log.ts'
import { productName, productVersion } from '#base/product.ts'
import { peerCredentials } from '#host/native.ts'
import { type FrontProcess, startFrontProcess } from '#http/front-process.ts'
import { localUsers } from '#http/peer.ts'
import { type ApiServerOptions, createApiServer } from '#http/server.ts'
import { createSpool } from '#http/spool.ts'
import { ensureCertificate } from '#http/tls.ts'
import { closeServer, listenOnSocket } from '#http/unix-socket.ts'
import { keepWatch } from '#loops/keep-watch.ts'
import { allOperations } from '#operations/all.ts'
import { openApi } from '#rest/openapi.ts'
import { createDispatcher } from '#rest/dispatch.ts'
import { TaskService } from '#tasks/service.ts'
import { prepareNode } from './prepare-node.ts'
import { buildServices, type NodeServices } from './services.ts'
import { settingsFrom } from './settings.ts'

const log = createLog((line) => process.stderr.write(`${line}\n`))

try {
  await run(log)
  process.exit(0)
} catch (error) {
  log.error(`the node cannot run: ${messageOf(error)}`, { error })
  process.exit(1)
}

async function run(log: Log): Promise<void> {
  const stopped = untilSignal()
  const settings = settingsFrom()
  await using closing = new AsyncDisposableStack()

  const services = await buildServices(settings, { log, isStoreChecked: true })
  closing.use(services.store)
  const { clock, random, store, host } = services
  const access = new AccessService({ store, clock, random, host, log, keysDir: join(settings.stateDir, 'keys') })
  const workerEntry = join(import.meta.dirname, 'worker.ts')
  const tasks = closing.use(
    new TaskService({ settings, clock, random, log, store, workerEntry, operations: allOperations }),
  )
  const node: NodeServices = { ...services, access, tasks }

  await prepareNode(node)
  await tasks.recover()
  await services.storage.sweep()
  const adopted = await services.guests.adopt()
  log.info(`${productName} ${productVersion} has its node '${settings.node}'`, { guests: adopted.length })

  const stopping = new AbortController()
  closing.defer(() => stopping.abort())
  await serve(node, log, closing)
  keepWatch(node, stopping.signal)
  await stopped
  log.info('stopping; guests and tasks go on')
}

/** Local socket, the front's socket, and the front with its TLS port. */
async function serve(node: NodeServices, log: Log, closing: AsyncDisposableStack): Promise<void> {
  const { settings, access, clock, random } = node
  const frontUid = settings.uidBase - 1
  const spool = createSpool({ directory: join(settings.stateDir, 'upload'), uid: frontUid, random })
  await spool.open()
  const dispatcher = createDispatcher({
    endpoints: allEndpoints,
    judge: access,
    makeCall: makeCall(node),
    node: settings.node,
    log,
    random,
  })
  const isUser = (user: string) =>
    access.user(user).then(
      () => true,
      () => false,
    )
  const common: Omit<ApiServerOptions, 'origin'> = {
    dispatcher,
    authenticator: {
      ticket: (text) => access.ticketIdentity(text),
      token: (text) => access.tokenIdentity(text),
      csrf: (who, header) => access.csrfIsValid(who, header),
    },
    peerCredentials,
    spool,
    clock,
    log,
    documents: {
      '/hako/openapi.json': {
        contentType: 'application/json',
        body: () => JSON.stringify(openApi(allEndpoints, { title: productName, version: productVersion })),
      },
    },
  }
  const sockets = [
    {
      name: 'api.sock',
      mode: 0o666,
      server: createApiServer({ ...common, origin: { kind: 'local', users: localUsers(isUser) } }),
    },
    {
      name: 'front.sock',
      mode: 0o600,
      uid: frontUid,
      server: createApiServer({ ...common, origin: { kind: 'front', uid: frontUid } }),
    },
  ]
  for (const { name, server, ...place } of sockets) {
    await listenOnSocket(server, { path: join(settings.runDir, name), ...place })
    closing.defer(() => closeServer(server))
  }
  const front = await serveOutside(node, spool.incoming, frontUid)
  closing.use(front)
  log.info('serving', {
    url: `https://${settings.apiHost}:${front.port}`,
    socket: join(settings.runDir, 'api.sock'),
  })
}

/** The unprivileged process that ends TLS. */
async function serveOutside(
  { settings, clock, random, log }: NodeServices,
  uploadDir: string,
  uid: number,
): Promise<FrontProcess> {
  const { key, certificate } = await ensureCertificate({
    directory: join(settings.stateDir, 'keys'),
    node: settings.node,
    clock,
    random,
  })
  return startFrontProcess({
    config: {
      key,
      certificate,
      host: settings.apiHost,
      port: settings.apiPort,
      daemonSocket: join(settings.runDir, 'front.sock'),
      uploadDir,
      node: settings.node,
    },
    uid,
    log,
    clock,
  })
}

function untilSignal(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve())
  })
}
