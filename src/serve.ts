/**
 * Opens the node to callers: the front with its socket and TLS port first, the local socket last, so that
 * whoever reaches the local socket finds a node that serves.
 */
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { makeCall } from '#api/make-call.ts'
import { allEndpoints } from '#api/root.ts'
import { productName, productVersion } from '#base/product.ts'
import { peerCredentials } from '#host/native.ts'
import { AccessLog, accessLogName } from '#http/access-log.ts'
import { apiDocuments } from '#http/documents.ts'
import { claimConsoles } from '#http/console-upgrade.ts'
import type { OfTask, Origin } from '#http/edge.ts'
import { type FrontProcess, startFrontProcess } from '#http/front-process.ts'
import { localUsers } from '#http/peer.ts'
import { type ApiServerOptions, createApiServer } from '#http/server.ts'
import { createSpool, type Spool } from '#http/spool.ts'
import { closeServer, listenOnSocket, type SocketPlace } from '#http/unix-socket.ts'
import { takeSpice } from '#operations/console/spice.ts'
import { createDispatcher } from '#rest/dispatch.ts'
import { markPath } from '#store/sqlite.ts'
import { parseUpid } from '#tasks/upid.ts'
import type { NodeServices } from './services.ts'
import { storePathOf } from './settings.ts'

/** What is opened is closed with `closing`. @throws Fault `conflict` when the port or a socket is taken */
export async function serve(node: NodeServices, closing: AsyncDisposableStack): Promise<void> {
  const { settings, access, tasks, random, log } = node
  const frontUid = settings.uidBase - 1
  const isInUse = (path: string) => tasks.isMentioned(path)
  const spool = createSpool({ directory: join(settings.stateDir, 'upload'), uid: frontUid, random, isInUse })
  await spool.open()
  const calls = closing.use(new AccessLog({ path: join(settings.stateDir, accessLogName), clock: node.clock, log }))
  const common = serverOptions(node, spool, calls)
  const listen = async (origin: Origin, name: string, place: Omit<SocketPlace, 'path'>) => {
    const server = createApiServer({ ...common, origin })
    await listenOnSocket(server, { path: join(settings.runDir, name), ...place })
    closing.defer(() => closeServer(server))
  }
  await listen({ kind: 'front', uid: frontUid }, 'front.sock', { mode: 0o600, uid: frontUid })
  // For reading: the front compares the mark, and must not be able to make one.
  const markDescriptor = openSync(markPath(storePathOf(settings)), 'r')
  closing.defer(() => closeSync(markDescriptor))
  const front = closing.use(await startFront(node, { uploadDir: spool.incoming, uid: frontUid, markDescriptor }))
  node.spice.serveAt(front.spice)
  const isUser = (user: string) =>
    access.user(user).then(
      () => true,
      () => false,
    )
  await listen({ kind: 'local', users: localUsers(isUser), ofTask: starterOf(node) }, 'api.sock', { mode: 0o666 })
  closing.defer(() => node.consoles.close())
  log.info('serving', { url: `https://${settings.apiHost}:${front.port}`, socket: join(settings.runDir, 'api.sock') })
}

/** A task acts with what its starter may do now, which may be less than when it was started. */
function starterOf({ access, tasks }: NodeServices): OfTask {
  return async (upid) => {
    const active = tasks.active().find((task) => task.upid === upid)
    const who = active && (await access.stillGood(parseUpid(active.upid).user))
    return who && { ...who, task: upid }
  }
}

function serverOptions(node: NodeServices, spool: Spool, calls: AccessLog): Omit<ApiServerOptions, 'origin'> {
  const { settings, access, clock, random, log } = node
  const dispatcher = createDispatcher({
    endpoints: allEndpoints,
    judge: access,
    makeCall: makeCall(node),
    node: settings.node,
    log,
    random,
    clock,
    mark: node.store.mark.read,
    observe: calls.observe,
  })
  return {
    dispatcher,
    takeSpice: (ticket, port) => takeSpice(node, ticket, port),
    claimUpgrade: claimConsoles({ dispatcher, take: (...door) => node.consoles.take(...door), clock }),
    authenticator: {
      ticket: (text) => access.ticketIdentity(text),
      token: (text) => access.tokenIdentity(text),
      csrf: (who, header) => access.csrfIsValid(who, header),
    },
    peerCredentials,
    spool,
    clock,
    log,
    documents: apiDocuments(allEndpoints, { title: productName, version: productVersion }),
  }
}

/** The unprivileged process that ends TLS. */
async function startFront(
  { settings, clock, log, certificates }: NodeServices,
  { uploadDir, uid, markDescriptor }: { uploadDir: string; uid: number; markDescriptor: number },
): Promise<FrontProcess> {
  const served = await certificates.wanted()
  const { key, certificate } = served
  const { apiHost: host, apiPort: port, spicePort, node } = settings
  const daemonSocket = join(settings.runDir, 'front.sock')
  const spice = spicePort === undefined ? {} : { spicePort }
  const config = { key, certificate, host, port, daemonSocket, uploadDir, node, ...spice }
  const front = await startFrontProcess({ config, uid, log, clock, markDescriptor })
  await certificates.serveWith(front.renew, served)
  return front
}
