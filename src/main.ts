/**
 * The daemon of a node: reads as its boot order.
 *
 * Guests and tasks do not need it to stay alive; it comes back, finds both, and goes on. Everything it
 * opens is closed by scope, in reverse.
 */
import { join } from 'node:path'
import { AccessService } from '#access/service.ts'
import { messageOf } from '#base/fault.ts'
import { createLog, type Log } from '#base/log.ts'
import { productName, productVersion } from '#base/product.ts'
import { collectGarbage } from '#loops/garbage.ts'
import { keepMemoryFree } from '#loops/ballooning.ts'
import { runBackupJobs } from '#loops/backup-jobs.ts'
import { runDatastoreJobs } from '#loops/datastore-jobs.ts'
import { keepCertificate } from '#loops/certificate.ts'
import { keepFilling } from '#loops/fill-disks.ts'
import { watchGuests } from '#loops/guest-status.ts'
import { writeHistory } from '#loops/history.ts'
import { runPlanJobs } from '#loops/plan-jobs.ts'
import { runRealmSyncJobs } from '#loops/realm-sync-jobs.ts'
import { prepareTemplateTrees } from '#loops/template-trees.ts'
import { tellMetricServers } from '#loops/metrics.ts'
import { allOperations } from '#operations/all.ts'
import { TaskService } from '#tasks/service.ts'
import { prepareNode } from './prepare-node.ts'
import { serve } from './serve.ts'
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

  const services = await buildServices(settings, { log, isStoreChecked: true, isAsked: true })
  closing.use(services.store)
  closing.use(services.fileMachines)
  const { clock, random, store } = services
  const keysDir = join(settings.stateDir, 'keys')
  const access = new AccessService({ ...services, keysDir })
  const workerEntry = join(import.meta.dirname, 'worker.ts')
  const tasks = closing.use(
    new TaskService({ settings, clock, random, log, store, workerEntry, operations: allOperations }),
  )
  const node: NodeServices = { ...services, access, tasks }

  await services.directories.mountAll(log)
  await prepareNode(node)
  await tasks.recover()
  await services.hostNetwork.bringUp()
  await services.storage.sweep()
  const adopted = await services.guests.adopt()
  log.info(`${productName} ${productVersion} has its node '${settings.node}'`, { guests: adopted.length })

  const stopping = new AbortController()
  closing.defer(() => stopping.abort())
  await serve(node, closing)
  watchGuests(node, stopping.signal)
  prepareTemplateTrees(node, stopping.signal)
  keepFilling(node, stopping.signal)
  keepMemoryFree(node, stopping.signal)
  keepCertificate(node, stopping.signal)
  runBackupJobs(node, stopping.signal)
  runDatastoreJobs(node, stopping.signal)
  runRealmSyncJobs(node, stopping.signal)
  collectGarbage(node, stopping.signal)
  runPlanJobs(node, stopping.signal)
  writeHistory(node, stopping.signal)
  tellMetricServers(node, stopping.signal)
  await stopped
  log.info('stopping; guests and tasks go on')
}

function untilSignal(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve())
  })
}
