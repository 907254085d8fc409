/** Entry of a task's process. */
import { asVmid, asVolumeId } from '#base/ids.ts'
import { createLog } from '#base/log.ts'
import { Cgroups } from '#host/cgroups/cgroup.ts'
import { allOperations } from '#operations/all.ts'
import { buildServices, type Services } from '#services.ts'
import { settingsFrom } from '#settings.ts'
import { runWorker } from '#tasks/worker.ts'

const log = createLog((line) => process.stderr.write(`${line}\n`))

/**
 * Node compiles what is called when it is called first, and that took more than most of what tasks do with a guest. What
 * is done next is mostly done to a guest of the same kind. Longer tasks would not notice.
 */
async function rehearse({ guests, network, storage, store }: Services, after: string): Promise<void> {
  if (!/^(qm|vz(?!dump))/.test(after)) return
  guests.expect(after.startsWith('vz') ? 'lxc' : 'qemu')
  const [guest, volume] = [asVmid(100), asVolumeId('local:100/subvol-100-disk-0.subvol')]
  const asked = [store.list(`locks/guest/${guest}`), guests.isRunning(guest), storage.describe(volume)]
  await Promise.allSettled([...asked, Cgroups.detect(), network.bridgeNames()])
}

await runWorker({
  operations: allOperations,
  buildServices: (settings) => buildServices(settings, { log, isStoreChecked: false }),
  rehearse,
  settings: settingsFrom(),
  stdin: process.stdin,
  flags: process.argv.slice(2),
})
// What an operation left open (a connection, a timer) must not keep an ended task's process.
process.exit(0)
