/** Clones, templates and moved disks: whatever fails, nothing half made remains. Guests are tiny and real. */
import assert from 'node:assert/strict'
import { readFile, stat } from 'node:fs/promises'
import { suite, test } from 'node:test'
import { asVolumeId } from '#base/ids.ts'
import type { Options } from '#guests/config.ts'
import { driveOf } from '#guests/qemu/drive.ts'
import { pivot } from '#guests/qemu/mirror.ts'
import { machine } from '#host/exec.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { Operation } from '#tasks/operation.ts'
import { perform, unwind } from '#tasks/perform.ts'
import {
  addDisk,
  depsOf,
  diskWorld,
  fill,
  lettersOf,
  look,
  placesLike,
  run,
  taskOf,
  volumeAt,
} from '../../../test/guest/disk-world.ts'
import type { GuestWorld } from '../../../test/guest/qemu-world.ts'
import { markOf } from '../storage/aside.ts'
import { cloneGuest } from './clone.ts'
import { configureGuest } from './configure.ts'
import { destroyGuest } from './destroy.ts'
import { hasFeature } from './feature.ts'
import { moveDisk } from './move-disk.ts'
import { rollbackGuest } from './rollback.ts'
import { snapshotGuest } from './snapshot.ts'
import { templateGuest } from './template.ts'

async function worldWith(prepare: (world: GuestWorld) => Promise<unknown>): Promise<GuestWorld> {
  const world = await diskWorld()
  const [first, second] = [await addDisk(world, 100, 'qcow2', 'A'), await addDisk(world, 100, 'raw', 'B')]
  await world.define(100, {
    name: 'web',
    scsihw: 'virtio-scsi-pci',
    scsi0: `${first},size=1M`,
    virtio1: `${second},size=1M`,
    ide2: 'none,media=cdrom',
    net0: 'virtio=BC:24:11:00:00:01',
    smbios1: 'uuid=11111111-2222-4333-8444-555555555555',
    vmgenid: '11111111-2222-4333-8444-555555555556',
  })
  await prepare(world)
  return world
}

const nothing = async () => {}
const started = async ({ guests, id }: GuestWorld) => guests.start(id(100))
const asTemplate = (world: GuestWorld) => run(world, templateGuest, { vmid: 100 })
const optionsOf = async (world: GuestWorld, vmid: number): Promise<Options> =>
  (await world.guests.config(world.id(vmid))).options

const plain = () => worldWith(nothing)

suite('of a stopped guest', () => {
  everyStepFails(
    cloneGuest,
    placesLike(() => worldWith((world) => depsOf(world).pools.create('dev')), {
      newid: 101,
      name: 'copy',
      pool: 'dev',
    }),
  )
  everyStepFails(templateGuest, placesLike(plain, {}))
  everyStepFails(moveDisk, placesLike(plain, { disk: 'scsi0', format: 'raw', delete: true }))
})
suite('of a template', () =>
  everyStepFails(
    cloneGuest,
    placesLike(() => worldWith(asTemplate), { newid: 101 }),
  ),
)
suite('of a running guest', () => {
  everyStepFails(cloneGuest, placesLike(plain, { newid: 101 }, started), { withCrashes: false })
  everyStepFails(moveDisk, placesLike(plain, { disk: 'virtio1', format: 'qcow2' }, started), {
    isFinal: true,
    withCrashes: false,
  })
  // One crash that matters most: the guest writes to the new image, and nobody has written that down.
  test('a crash right after the switch is finished by the next process', async () => {
    await using world = await worldWith(started)
    const task = taskOf('UPID:crash')
    const params = { vmid: 100, disk: 'scsi0', format: 'raw', delete: true } as const
    const journal = memoryJournal()
    const died = new Operation<typeof params, ReturnType<typeof depsOf>>(
      'qmmove',
      moveDisk.facts as never,
      moveDisk.steps.filter(({ name }) => name !== 'old volume' && name !== 'switch'),
    )
    await perform(died, params, depsOf(world), journal, { task }).catch(() => {})
    await using monitor = await world.guests.qmp(world.id(100), 'long')
    const text = (await optionsOf(world, 100)).scsi0 ?? ''
    await pivot(monitor, driveOf('scsi0', text), markOf(task.upid))
    await monitor[Symbol.asyncDispose]()
    const left = journal.records.filter(({ event }) => event === 'begin' || event === 'done')
    const again = memoryJournal([...left, { event: 'begin', step: 'switch' }])
    await unwind(moveDisk, params, depsOf(world), again, { task })
    const { options, running } = await world.guests.config(world.id(100))
    assert.match(options.scsi0 ?? '', /^local:100\/vm-100-disk-2\.raw,/)
    assert.equal(running?.scsi0, options.scsi0)
    assert.equal(options.unused0, 'local:100/vm-100-disk-0.qcow2')
    await run(world, moveDisk, { vmid: 100, disk: 'scsi0', format: 'qcow2' })
  })
})

test('a full clone has the content, and addresses and ids of its own', async () => {
  await using world = await worldWith(nothing)
  await run(world, cloneGuest, { vmid: 100, newid: 101, description: 'a copy' })
  const [source, clone] = [await optionsOf(world, 100), await optionsOf(world, 101)]
  assert.equal(clone.name, 'Copy-of-VM-web')
  assert.equal(clone.description, 'a copy')
  assert.equal(clone.ide2, source.ide2)
  assert.match(clone.scsi0 ?? '', /^local:101\/vm-101-disk-0\.qcow2,size=1M$/)
  assert.match(clone.virtio1 ?? '', /^local:101\/vm-101-disk-1\.raw,size=1M$/)
  for (const name of ['net0', 'smbios1', 'vmgenid']) assert.notEqual(clone[name], source[name], name)
  assert.equal(await lettersOf(world, volumeAt(clone, 'scsi0')), 'A')
  assert.equal(await lettersOf(world, volumeAt(clone, 'virtio1')), 'B')
})

test('a running guest is cloned as it was at one moment', async () => {
  await using world = await worldWith(started)
  await run(world, cloneGuest, { vmid: 100, newid: 101, format: 'qcow2' })
  const clone = await optionsOf(world, 101)
  assert.equal(await lettersOf(world, volumeAt(clone, 'scsi0')), 'A')
  assert.equal(await lettersOf(world, volumeAt(clone, 'virtio1')), 'B')
  await world.guests.start(world.id(101))
})

test('a clone from a snapshot has what the snapshot has, also while the guest runs', async () => {
  await using world = await worldWith(async (making) => {
    await run(making, moveDisk, { vmid: 100, disk: 'virtio1', format: 'qcow2', delete: true })
    await run(making, snapshotGuest, { vmid: 100, name: 'one' })
    for (const drive of ['scsi0', 'virtio1']) await fill(making, volumeAt(await optionsOf(making, 100), drive), 'X')
  })
  for (const newid of [101, 102]) {
    if (newid === 102) await world.guests.start(world.id(100))
    await run(world, cloneGuest, { vmid: 100, newid, snapshot: 'one' })
    const clone = await optionsOf(world, newid)
    assert.equal(await lettersOf(world, volumeAt(clone, 'scsi0')), 'A')
    assert.equal(await lettersOf(world, volumeAt(clone, 'virtio1')), 'B')
    assert.equal(clone.parent, undefined)
    assert.equal((await world.guests.config(world.id(newid))).snapshots, undefined)
  }
})

test('linked clones of a template run, write and have snapshots, and leave the template as it is', async () => {
  await using world = await worldWith(asTemplate)
  const template = await optionsOf(world, 100)
  assert.match(template.scsi0 ?? '', /^local:100\/base-100-disk-0\.qcow2,size=1M$/)
  await assert.rejects(world.guests.start(world.id(100)), /template/)
  await run(world, cloneGuest, { vmid: 100, newid: 101 })
  const clone = await optionsOf(world, 101)
  assert.equal(clone.template, undefined)
  const disk = volumeAt(clone, 'virtio1')
  assert.equal(disk, 'local:100/base-100-disk-1.raw/101/vm-101-disk-1.qcow2')
  assert.equal((await world.storage.describe(disk)).parent, 'local:100/base-100-disk-1.raw')
  assert.equal(await lettersOf(world, disk), 'B')
  await world.guests.start(world.id(101))
  await run(world, snapshotGuest, { vmid: 101, name: 'one', memory: true })
  await world.guests.stop(world.id(101))
  await fill(world, disk, 'Y')
  assert.equal(await lettersOf(world, disk), 'Y')
  await run(world, rollbackGuest, { vmid: 101, name: 'one' })
  assert.equal(await world.guests.isRunning(world.id(101)), true)
  await world.guests.stop(world.id(101))
  assert.equal(await lettersOf(world, disk), 'B')
  assert.equal(await lettersOf(world, volumeAt(template, 'virtio1')), 'B')
})

test('the disk of a template is open to root alone, and reaches its clones as an open file', async () => {
  await using world = await worldWith(asTemplate)
  await run(world, cloneGuest, { vmid: 100, newid: 101 })
  const base = asVolumeId('local:100/base-100-disk-1.raw')
  const { path } = (await world.storage.layers(base)).layers[0]
  const { uid, mode } = await stat(path)
  assert.deepEqual([uid, mode & 0o777], [0, 0o400])
  await world.guests.start(world.id(101))
  const { state } = await world.guests.status(world.id(101))
  assert.equal(state.state, 'running')
  const command = await readFile(`/proc/${state.state === 'running' ? state.pid : 0}/cmdline`, 'utf8')
  assert.doesNotMatch(command, /base-100/)
  assert.match(command, /\/dev\/fdset\//)
  assert.equal((await stat(path)).uid, 0)
  await assert.rejects(world.storage.giveTo(base, 1_000_000_101), /only read/)
})

test('a disk that its guest has based on something else is not opened any more', async () => {
  await using world = await worldWith(asTemplate)
  await run(world, cloneGuest, { vmid: 100, newid: 101 })
  await world.define(200, { virtio0: `${await addDisk(world, 200, 'raw', 'S')},size=1M` })
  await run(world, templateGuest, { vmid: 200 })
  const disk = volumeAt(await optionsOf(world, 101), 'scsi0')
  const { path } = (await world.storage.layers(disk)).layers[0]
  const rebase = (to: string) => machine().run(['qemu-img', 'rebase', '-u', '-f', 'qcow2', '-b', to, '-F', 'raw', path])
  await rebase('../200/base-200-disk-0.raw')
  await assert.rejects(world.guests.start(world.id(101)), (fault: Error) =>
    /does not exist|refers to/.test(fault.message),
  )
  const claimed = 'local:200/base-200-disk-0.raw/101/vm-101-disk-0.qcow2'
  const change = { set: { scsi5: claimed }, delete: [], revert: [] }
  await assert.rejects(run(world, configureGuest, { vmid: 101, change }), (fault: { fields?: Options }) =>
    /was not made for this guest/.test(fault.fields?.scsi5 ?? ''),
  )
  await rebase('/etc/shadow')
  await assert.rejects(world.guests.start(world.id(101)), /refers to|does not exist/)
})

test('a template outlives its linked clones, and has no snapshots', async () => {
  await using world = await worldWith(asTemplate)
  await run(world, cloneGuest, { vmid: 100, newid: 101 })
  const before = await look(world)
  await assert.rejects(run(world, destroyGuest, { vmid: 100 }), /base volume '.*' is still in use by linked clone/)
  await assert.rejects(run(world, snapshotGuest, { vmid: 100, name: 'one' }), /template/)
  await assert.rejects(run(world, templateGuest, { vmid: 100 }), /you can't convert a template to a template/)
  assert.deepEqual(await look(world), before)
  await run(world, destroyGuest, { vmid: 101 })
  await run(world, destroyGuest, { vmid: 100 })
  assert.deepEqual(await world.filesOfStorage(), [])
})

test('a linked clone becomes a template that is cloned in turn, and a full clone of it stands alone', async () => {
  await using world = await worldWith(asTemplate)
  await run(world, cloneGuest, { vmid: 100, newid: 101 })
  await fill(world, volumeAt(await optionsOf(world, 101), 'scsi0'), 'C')
  await run(world, templateGuest, { vmid: 101 })
  await run(world, cloneGuest, { vmid: 101, newid: 102 })
  const linked = volumeAt(await optionsOf(world, 102), 'scsi0')
  assert.equal(linked, 'local:101/base-101-disk-0.qcow2/102/vm-102-disk-0.qcow2')
  assert.equal((await world.storage.layers(linked)).layers.length, 3)
  assert.equal(await lettersOf(world, linked), 'C')
  await world.guests.start(world.id(102))
  await run(world, cloneGuest, { vmid: 102, newid: 103 })
  const full = volumeAt(await optionsOf(world, 103), 'scsi0')
  assert.equal((await world.storage.layers(full)).layers.length, 1)
  assert.equal(await lettersOf(world, full), 'C')
})

test('a disk moves under a running guest, twice, and then has snapshots', async () => {
  await using world = await worldWith(started)
  const vmid = world.id(100)
  await run(world, moveDisk, { vmid: 100, disk: 'virtio1', format: 'qcow2', delete: true })
  await run(world, moveDisk, { vmid: 100, disk: 'scsi0', format: 'raw' })
  await run(world, moveDisk, { vmid: 100, disk: 'scsi0', format: 'qcow2', delete: true })
  const { options, running } = await world.guests.config(vmid)
  assert.equal(options.scsi0, running?.scsi0)
  assert.equal(options.virtio1, running?.virtio1)
  assert.match(options.unused0 ?? '', /^local:100\/vm-100-disk-0\.qcow2$/)
  assert.deepEqual(
    new Set((await world.storage.content('local')).map(({ volid }) => volid)),
    new Set([options.unused0, volumeAt(options, 'scsi0'), volumeAt(options, 'virtio1')]),
  )
  await run(world, snapshotGuest, { vmid: 100, name: 'live', memory: true })
  await run(world, snapshotGuest, { vmid: 100, name: 'quick' })
  await run(world, rollbackGuest, { vmid: 100, name: 'live' })
  await world.guests.stop(vmid)
  assert.equal(await lettersOf(world, volumeAt(options, 'scsi0')), 'A')
  assert.equal(await lettersOf(world, volumeAt(options, 'virtio1')), 'B')
})

test('a disk that would stay where it is, or tear a snapshot apart, is not moved', async () => {
  await using world = await worldWith(nothing)
  const move = (more: object) => run(world, moveDisk, { vmid: 100, disk: 'scsi0', ...more })
  await assert.rejects(move({}), /^Fault: you can't move to the same storage with same format$/)
  await assert.rejects(move({ storage: 'local', format: 'qcow2' }), /same storage with same format/)
  await assert.rejects(move({ disk: 'scsi9', format: 'raw' }), /disk 'scsi9' does not exist/)
  await move({ disk: 'virtio1', format: 'qcow2', delete: true })
  await run(world, snapshotGuest, { vmid: 100, name: 'one' })
  await assert.rejects(move({ format: 'raw', delete: true }), /move a disk with snapshots and delete the source/)
})

test('what cannot be cloned is refused before anything is made', async () => {
  await using world = await worldWith(nothing)
  const before = await look(world)
  const clone = (more: object) => run(world, cloneGuest, { vmid: 100, newid: 101, ...more })
  await assert.rejects(clone({ full: false }), /Linked clone feature is not supported for drive 'scsi0'/)
  await assert.rejects(clone({ snapshot: 'gone' }), /snapshot 'gone' does not exist/)
  await assert.rejects(clone({ newid: 100 }), /already exists/)
  await assert.rejects(clone({ storage: 'nowhere' }), /storage 'nowhere' does not exist/)
  assert.deepEqual(await look(world), before)
})

test('features say beforehand what can be made', async () => {
  await using world = await worldWith(nothing)
  const has = async (feature: 'snapshot' | 'clone' | 'copy') =>
    hasFeature(world.storage, await world.guests.config(world.id(100)), { feature })
  assert.deepEqual([await has('snapshot'), await has('clone'), await has('copy')], [false, false, true])
  await run(world, moveDisk, { vmid: 100, disk: 'virtio1', format: 'qcow2', delete: true })
  assert.equal(await has('snapshot'), true)
  await asTemplate(world)
  assert.deepEqual([await has('snapshot'), await has('clone'), await has('copy')], [false, true, true])
})
