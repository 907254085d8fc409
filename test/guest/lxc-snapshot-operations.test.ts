/** Snapshots, templates, clones and moves of containers keep the promises every operation makes. */
import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { systemClock } from '#base/clock.ts'
import type { Vmid, VolumeId } from '#base/ids.ts'
import { systemRandom } from '#base/random.ts'
import { mountedVolumes } from '#guests/lxc/mountpoint.ts'
import { machine } from '#host/exec.ts'
import { makeExt4 } from '#host/disks/ext4.ts'
import { freeze } from '#host/disks/mount.ts'
import { cloneContainer } from '#operations/guest/clone-container.ts'
import { deleteContainerSnapshot } from '#operations/guest/delete-snapshot.ts'
import { moveVolume } from '#operations/guest/move-volume.ts'
import { reassignVolume } from '#operations/guest/reassign-volume.ts'
import { rollbackContainer } from '#operations/guest/rollback.ts'
import { snapshotContainer } from '#operations/guest/snapshot-container.ts'
import { templateContainer } from '#operations/guest/template.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform, unwind } from '#tasks/perform.ts'
import type { AnyOperation } from '#tasks/registry.ts'
import { type ContainerWorld, containerWorld } from './container-world.ts'

const host = machine()
const without = { withCrashes: false }

suite('operations on what containers are made of', { timeout: 300_000 }, () => {
  let world: ContainerWorld
  /** Runs, on btrfs. */
  let live: Vmid
  before(async () => {
    world = await containerWorld({ withPool: true })
    live = await world.make(100, { rootfs: 'pool:0' })
    await world.guests.start(live)
  })
  after(() => world[Symbol.asyncDispose]())

  const pools = { put: async () => {}, takeOut: async () => undefined, poolOf: async () => undefined }
  const own = { [Symbol.asyncDispose]: async () => {} }
  const deps = () => ({
    ...world,
    host,
    random: systemRandom,
    clock: { ...systemClock, now: () => 1_800_000_000_000 },
    pools,
  })
  const task = { upid: 'UPID:lab:test', user: 'root@pam', node: 'lab', startTime: 0 }
  const run = (which: AnyOperation, params: object) =>
    perform(which as never, params as never, deps() as never, memoryJournal(), { task })

  const look = async () => {
    const snapshots: unknown[] = []
    for (const { vmid, lock } of await world.guests.list()) {
      if (lock === undefined) snapshots.push((await world.guests.config(vmid, 'lxc')).snapshots)
    }
    const isPaused = (await world.guests.isRunning(live)) && (await world.guests.isPaused(live))
    return { ...(await world.everything()), snapshots, isPaused }
  }
  const place = (params: object, prepare: () => Promise<unknown>) => async () => {
    await prepare()
    return { params: params as never, deps: deps() as never, look, ...own }
  }
  const volumesOf = async (vmid: Vmid): Promise<VolumeId[]> =>
    mountedVolumes((await world.guests.config(vmid, 'lxc')).options).map(({ volid }) => volid)
  const rootOf = async (vmid: Vmid) =>
    (await world.storage.location((await volumesOf(vmid))[0] ?? ('' as VolumeId))).path
  const withoutSnapshots = async (vmid: Vmid) => {
    for (const volid of await volumesOf(vmid)) {
      const snapshots = await world.storage.snapshots(volid)
      for (const tag of await snapshots.list()) await snapshots.drop(tag)
    }
    const { parent: _, ...options } = (await world.guests.config(vmid, 'lxc')).options
    await world.guests.changeSnapshots(vmid, () => ({ options, snapshots: {} }))
  }

  // The steps are those of virtual machines, or like them, whose tests let the process die as well.
  everyStepFails(
    snapshotContainer,
    place({ vmid: 100, name: 'one', description: 'first' }, () => withoutSnapshots(live)),
    without,
  )

  test('a container somebody died holding goes on, and one that was suspended stays so', async () => {
    await withoutSnapshots(live)
    const before = await look()
    for (const isSuspended of [false, true]) {
      await world.guests.suspend(live)
      const check = { snapshot: { options: {}, takenAt: 0, description: '' }, volumes: [], isSuspended }
      const journal = memoryJournal([
        { event: 'begin', step: 'check' },
        { event: 'done', step: 'check', result: check },
        { event: 'begin', step: 'volumes' },
      ])
      await unwind(snapshotContainer, { vmid: 100, name: 'one' }, deps(), journal, { task })
      assert.equal(await world.guests.isPaused(live), isSuspended)
      await world.guests.resume(live)
    }
    assert.deepEqual(await look(), before)
  })

  let noted: Vmid
  before(async () => {
    noted = await world.make(101, { rootfs: 'pool:0' })
  })
  const changedSince = async () => {
    const note = join(await rootOf(noted), 'note')
    const { snapshots = {} } = await world.guests.config(noted, 'lxc')
    if (!snapshots.before) {
      await writeFile(note, 'before')
      await run(snapshotContainer, { vmid: noted, name: 'before' })
    }
    await writeFile(note, 'after')
    await world.guests.changeConfig(noted, (options) => ({ ...options, memory: '80' }))
  }
  everyStepFails(rollbackContainer, place({ vmid: 101, name: 'before' }, changedSince), without)
  everyStepFails(deleteContainerSnapshot, place({ vmid: 101, name: 'before' }, changedSince), {
    isFinal: true,
    ...without,
  })

  suite('on a folder', () => {
    /** Only a success leaves another one than it was. */
    const made = async () => {
      for (const [number, options] of [[102, { mp0: 'local:0,mp=/srv' }] as const, [105, {}] as const]) {
        const vmid = world.id(number)
        const now = (await world.guests.exists(vmid)) ? (await world.guests.config(vmid, 'lxc')).options : undefined
        const isAsMade =
          now?.template === undefined &&
          now?.mp2 === undefined &&
          now?.mp0?.split(':')[0] === options.mp0?.split(':')[0]
        if (now && isAsMade) continue
        await world.remove(number)
        await world.make(number, options)
      }
    }
    everyStepFails(templateContainer, place({ vmid: 102 }, made), without)
    everyStepFails(reassignVolume, place({ vmid: 102, volume: 'mp0', target: 105, targetVolume: 'mp2' }, made), without)
    everyStepFails(moveVolume, place({ vmid: 102, volume: 'mp0', storage: 'pool', delete: true }, made), without)
  })

  test('an image is kept as after a clean unmount, and goes on being written whoever died', async () => {
    const { guests, storage } = world
    const image = {
      storage: 'pool',
      vmid: world.id(106),
      sizeBytes: 32 * MiB,
      format: 'raw',
      content: 'rootdir',
    } as const
    const volid = await storage.allocate(image)
    await makeExt4(host, (await storage.location(volid)).path, 100_000)
    const vmid = await world.make(106, { rootfs: volid })
    await guests.start(vmid)
    await world.untilUp(vmid)
    const sh = async (script: string) => {
      const command = ['/bin/sh', '-c', script]
      return (await guests.runInside(vmid, { command, timeoutMs: 20_000, outputBytes: 999 })).stdout.trim()
    }
    await sh('echo kept > /root/note')
    await run(snapshotContainer, { vmid, name: 'one' })
    await sh('echo later > /root/note')
    await run(cloneContainer, { vmid, newid: 107, snapshot: 'one', storage: 'local' })
    const { options } = await guests.config(world.id(107), 'lxc')
    const note = ({ rootfs = '' }) => readFile(join(rootfs, 'root/note'), 'utf8')
    assert.equal(await guests.withVolumes(world.id(107), options, note), 'kept\n')

    // As somebody leaves it who dies while he holds it.
    await guests.suspend(vmid)
    await freeze(host, (await guests.mountOf(vmid, 'rootfs')) ?? assert.fail('not mounted'))
    await guests.letGo(vmid, { isSuspended: false })
    assert.equal(await sh('echo goes on > /root/note; cat /root/note'), 'goes on')

    await run(rollbackContainer, { vmid, name: 'one', start: true })
    await world.untilUp(vmid)
    assert.equal(await sh('cat /root/note'), 'kept')
    for (const number of [106, 107]) await world.remove(number)
  })

  suite('of one that runs', () => {
    everyStepFails(
      cloneContainer,
      place({ vmid: 100, newid: 104, hostname: 'copy' }, () => world.remove(104)),
      without,
    )
  })
})
