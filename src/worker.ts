/** Entry of a task's process. */
import { createLog } from '#base/log.ts'
import { allOperations } from '#operations/all.ts'
import { buildServices } from '#services.ts'
import { settingsFrom } from '#settings.ts'
import { runWorker } from '#tasks/worker.ts'

const log = createLog((line) => process.stderr.write(`${line}\n`))

await runWorker({
  operations: allOperations,
  buildServices: (settings) => buildServices(settings, { log, isStoreChecked: false }),
  settings: settingsFrom(),
  stdin: process.stdin,
  flags: process.argv.slice(2),
})
// What an operation left open (a connection, a timer) must not keep an ended task's process.
process.exit(0)
