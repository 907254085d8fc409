/** The drill of a container keeps the promises every operation makes: whatever fails, nothing of it stays. */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { systemRandom } from '#base/random.ts'
import { NodeFacts } from '#cluster/node-facts.ts'
import { completed } from '#guests/lxc/change.ts'
import { unprivilegedMap } from '#guests/lxc/idmap.ts'
import { unpackTemplate } from '#guests/lxc/unpack.ts'
import { machine } from '#host/exec.ts'
import { links } from '#host/network/ip.ts'
import { mountPoints } from '#host/disks/mount.ts'
import { listNetns } from '#host/network/netns.ts'
import { findProcesses } from '#host/programs/proc.ts'
import { namesOf } from '#network/names.ts'
import { makeMounts } from '#operations/guest/container-volumes.ts'
import { drillGuest } from '#operations/recovery/drill.ts'
import type { DrillGuest } from '#operations/recovery/drill-facts.ts'
import { RecoveryService } from '#recovery/service.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { writeTemplate } from '../fixtures/containers/template.ts'
import { type BackupWorld, backupWorld } from './backup-world.ts'

const host = machine()

suite('the drill of a container', { timeout: 300_000 }, () => {
  // One for all runs: what a run leaves behind is there for the next ones to see, too.
  let world: BackupWorld
  let runs = 0
  before(async () => {
    world = await backupWorld()
    await makeContainer(world)
    await world.run({ vmids: [100] })
  })
  after(async () => {
    await world.network.removeEverything()
    await world[Symbol.asyncDispose]()
  })

  everyStepFails(
    drillGuest,
    async () => {
      const params: DrillGuest = {
        vmid: 100,
        backupStorage: 'vault',
        wanted: 'L4',
        probes: [],
        bootTimeoutSeconds: 20,
      }
      // A run follows the one before within the second evidence is named after.
      runs += 1
      const recovery = new RecoveryService({ stateDir: join(world.settings.stateDir, `run-${runs}`) })
      const deps = { ...world.deps, network: world.network, recovery, node: new NodeFacts({ clock: systemClock }) }
      return { params, deps, look: () => everythingOf(world), [Symbol.asyncDispose]: async () => {} }
    },
    // Of crashes see the drill of a virtual machine, whose steps these are, and of a real one `drill-containers.test.ts`.
    { leavesNothing: true, withCrashes: false },
  )
})

/** With two volumes, one of them an image that has to be mounted, and an init that says at once that it is up. */
async function makeContainer(world: BackupWorld): Promise<void> {
  const vmid = world.id(100)
  const { storage, guests } = world
  const archive = join(world.settings.stateDir, 'template.tar')
  await writeTemplate(archive)
  await guests.reserve(vmid, 'test', 'lxc')
  const wish = {
    rootfs: 'local:0',
    mp0: 'local:0.0625,mp=/srv,backup=1',
    memory: '64',
    unprivileged: '1',
    ostype: 'unmanaged',
    entrypoint: '/etc/getty',
    net0: 'name=eth0,bridge=none,ip=dhcp',
  }
  const mounts = await makeMounts(wish, ['rootfs', 'mp0'], { vmid, storage, host, log: () => {} })
  const options = completed({ ...wish, ...mounts }, systemRandom)
  await guests.withVolumes(vmid, options, async ({ rootfs = '' }) => {
    await unpackTemplate({ archive, rootfs, idMap: unprivilegedMap })
    await host.run(['cp', '-a', join(rootfs, 'etc/quick'), join(rootfs, 'etc/getty')])
  })
  await guests.writeConfig(vmid, options, { owner: 'test' })
}

/** All a drill could leave on the machine or in the node. */
async function everythingOf(world: BackupWorld): Promise<object> {
  const { settings, guests, store, filesOfStorage } = world
  const names = namesOf(settings.instance)
  const runFiles = await Promise.all(
    ['guests', 'mounts'].map((name) => readdir(join(settings.runDir, name), { recursive: true }).catch(() => [])),
  )
  const monitors = await findProcesses((argv) => argv.join(' ').includes(settings.runDir))
  return {
    guests: (await guests.list()).map(({ vmid, lock, state }) => ({ vmid, lock, state: state.state })),
    keys: (await store.list('')).map(({ key }) => key),
    links: (await links(host)).filter(names.isOurLink).map(({ name }) => name),
    netns: (await listNetns(host)).filter(names.isOurNetns),
    mounts: (await mountPoints()).filter((path) => path.startsWith(settings.runDir) && !path.endsWith('/lxcfs/fs')),
    // One lxcfs serves them all, from the first start on.
    programs: monitors.length > 1 ? monitors : [],
    runFiles: runFiles
      .flat()
      .filter((name) => /\d/.test(name))
      .toSorted(),
    storage: await filesOfStorage(),
  }
}
