/** Making, changing and destroying guests: on a real store and a real storage, without starting one. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PathRights } from '#access/path-rights.ts'
import { AccessState } from '#access/world.ts'
import { systemClock } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import type { ConfigChange, Options } from '#guests/config.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import { BackupJobs } from '#cluster/backup-jobs.ts'
import { PoolService } from '#pools/service.ts'
import { copiesOf, type GuestWorld, guestWorld, machineOfOneVersion } from '../../../test/guest/qemu-world.ts'
import { configureGuest } from './configure.ts'
import { type CreateDeps, createGuest } from './create.ts'
import { destroyGuest, type DestroyDeps } from './destroy.ts'

const change = (some: Partial<ConfigChange>): ConfigChange => ({ set: {}, delete: [], revert: [], ...some })

async function worldWithStorage(): Promise<GuestWorld> {
  const world = await guestWorld({ forgetful: true })
  await world.addStorage()
  return world
}

const host = machineOfOneVersion()

const depsOf = ({ guests, storage, store }: GuestWorld) =>
  ({
    guests,
    storage,
    pools: new PoolService({ store, rightsMark: 'mark' }),
    backupJobs: new BackupJobs({ store, clock: systemClock }),
    rights: new PathRights({ accessState: new AccessState(store) }),
    host,
    clock: { ...systemClock, now: () => 1_800_000_000_000 },
    // The same in every world, so that two of them can be compared.
    random: { bytes: (count) => new Uint8Array(count).fill(7), uuid: () => '8c3f1b1e-9a55-4c9e-8d8e-27f3b3a1a001' },
  }) satisfies CreateDeps & DestroyDeps

/** Guests with their options, and every file of the storage, whatever its name. */
async function look({ guests, storage, store, filesOfStorage }: GuestWorld): Promise<unknown> {
  const all = await guests.list()
  return {
    guests: all.map(({ vmid, options, lock, state }) => ({ vmid, options, lock, state: state.state })),
    volumes: (await storage.content('local')).map(({ volid }) => volid),
    files: await filesOfStorage(),
    pools: (await store.get('pools'))?.value,
    rights: await new PathRights({ accessState: new AccessState(store) }).on('/vms/100'),
  }
}

async function make(world: GuestWorld, vmid: number, options: Options): Promise<void> {
  await perform(createGuest, { vmid, options }, depsOf(world), memoryJournal(), { task: taskOf(`make-${vmid}`) })
}

const taskOf = (upid: string) => ({ upid, user: 'root@pam', node: 'testnode', startTime: 0 })

const twoDisks: Options = {
  name: 'web',
  memory: '64',
  scsi0: 'local:0.01',
  virtio1: 'local:0.02,format=qcow2',
  net0: 'virtio',
}

/** A world for each run, begun as one that was prepared. */
function places(prepare: (world: GuestWorld) => Promise<void>, params: object) {
  const another = copiesOf(async () => {
    const world = await worldWithStorage()
    await prepare(world)
    return world
  }, guestWorld)
  return async () => {
    const world = await another()
    return {
      params: params as never,
      deps: depsOf(world),
      look: () => look(world),
      [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
    }
  }
}

everyStepFails(
  createGuest,
  places(
    async (world) => {
      // What an earlier guest of the same id left is nobody's to remove.
      await world.storage.allocate({ storage: 'local', vmid: world.id(100), sizeBytes: 4096, format: 'raw' })
      await make(world, 101, { scsi0: 'local:0.01' })
      await depsOf(world).pools.create('dev')
    },
    { vmid: 100, options: twoDisks, pool: 'dev' },
  ),
)

everyStepFails(
  destroyGuest,
  places(
    async (world) => {
      const right = { path: '/vms/100', type: 'user', ugid: 'root@pam', roleid: 'PVEVMUser', propagate: true } as const
      await depsOf(world).rights.restore([right])
      await make(world, 100, twoDisks)
      await make(world, 101, { scsi0: 'local:0.01' })
      await depsOf(world).pools.create('dev')
      await depsOf(world).pools.put(100, 'dev')
    },
    { vmid: 100 },
  ),
)

everyStepFails(
  configureGuest,
  places((world) => make(world, 100, twoDisks), {
    vmid: 100,
    force: true,
    change: change({ set: { scsi2: 'local:0.01', cores: '2' }, delete: ['virtio1'] }),
  }),
)

test('a new guest gets its volumes, sizes, addresses and ids', async () => {
  await using world = await worldWithStorage()
  await make(world, 100, { ...twoDisks, vmgenid: '1', tags: 'b,A;b' })
  const { options } = await world.guests.config(world.id(100))
  assert.match(options.scsi0 ?? '', /^local:100\/vm-100-disk-0\.(raw|qcow2),size=\d+K$/)
  assert.match(options.virtio1 ?? '', /^local:100\/vm-100-disk-1\.qcow2,size=\d+K$/)
  assert.match(options.net0 ?? '', /^virtio=BC:24:11(:[0-9A-F]{2}){3}$/)
  assert.match(options.smbios1 ?? '', /^uuid=[0-9a-f-]{36}$/)
  assert.match(options.vmgenid ?? '', /^[0-9a-f-]{36}$/)
  assert.match(options.meta ?? '', /^creation-qemu=\d+\.\d+\.\d+,ctime=\d+$/)
  assert.equal(options.boot, 'order=scsi0;net0')
  assert.equal(options.tags, 'a;b')
})

test('a bridge that does not exist is said when it is written down, and is no failure', async () => {
  await using world = await worldWithStorage()
  const vmid = 100
  const said: string[] = []
  const how = { task: taskOf('make'), log: (line: string) => void said.push(line) }
  const options = { scsi0: 'local:0.01', net0: 'virtio,bridge=hknone0', net1: 'virtio' }
  await perform(createGuest, { vmid, options }, depsOf(world), memoryJournal(), how)
  const set = { scsi1: 'local:0.01', net2: 'virtio,bridge=hknone1' }
  await perform(configureGuest, { vmid, change: change({ set }) }, depsOf(world), memoryJournal(), how)
  const note = (name: string, bridge: string) =>
    `note: ${name}: bridge '${bridge}' does not exist on this node; the guest cannot start before it does`
  assert.deepEqual(
    said.filter((line) => line.includes('bridge')),
    [note('net0', 'hknone0'), note('net2', 'hknone1')],
  )
  assert.match((await world.guests.config(world.id(vmid))).options.net2 ?? '', /bridge=hknone1/)
})

test('a guest id that is taken stays with the guest that has it', async () => {
  await using world = await worldWithStorage()
  await make(world, 100, twoDisks)
  const before = await look(world)
  const again = perform(createGuest, { vmid: 100, options: twoDisks }, depsOf(world), memoryJournal(), {
    task: taskOf('again'),
  })
  await assert.rejects(again, /VM 100 already exists on node 'testnode'/)
  assert.deepEqual(await look(world), before)
})

test('a new disk that does not fit leaves no guest, and says how much is missing', async () => {
  await using world = await worldWithStorage()
  const before = await look(world)
  const options = { scsi0: 'local:0.01', scsi1: 'local:60000' }
  const failing = perform(createGuest, { vmid: 100, options }, depsOf(world), memoryJournal())
  await assert.rejects(failing, (fault) => isFault(fault, 'exhausted'))
  assert.deepEqual(await look(world), before)
})

test('a removed disk stays as unused until that is deleted too', async () => {
  await using world = await worldWithStorage()
  await make(world, 100, twoDisks)
  const vmid = world.id(100)
  assert.equal(await world.guests.applyChange(vmid, change({ delete: ['virtio1'] })), true)
  const { options } = await world.guests.config(vmid)
  assert.equal(options.virtio1, undefined)
  assert.equal(options.unused0, 'local:100/vm-100-disk-1.qcow2')
  assert.equal(await world.guests.applyChange(vmid, change({ delete: ['unused0'] })), false)
  await perform(configureGuest, { vmid, change: change({ delete: ['unused0'] }) }, depsOf(world), memoryJournal())
  assert.equal((await world.guests.config(vmid)).options.unused0, undefined)
  assert.deepEqual(
    (await world.storage.content('local')).map(({ volid }) => volid),
    ['local:100/vm-100-disk-0.raw'],
  )
})

test('an unused disk comes back under another name, and a volume of another guest does not', async () => {
  await using world = await worldWithStorage()
  await make(world, 100, twoDisks)
  await make(world, 101, { scsi0: 'local:0.01' })
  const vmid = world.id(100)
  await world.guests.applyChange(vmid, change({ delete: ['virtio1'] }))
  const configure = (set: Options) =>
    perform(configureGuest, { vmid, change: change({ set }) }, depsOf(world), memoryJournal())
  await configure({ sata0: 'local:100/vm-100-disk-1.qcow2' })
  const { options } = await world.guests.config(vmid)
  assert.match(options.sata0 ?? '', /^local:100\/vm-100-disk-1\.qcow2,size=/)
  assert.equal(options.unused0, undefined)
  await assert.rejects(configure({ sata1: 'local:101/vm-101-disk-0.raw' }), /Parameter verification failed/)
  await assert.rejects(configure({ sata1: 'local:100/vm-100-disk-1.qcow2' }), /Parameter verification failed/)
})

test('a protected guest keeps itself and its disks', async () => {
  await using world = await worldWithStorage()
  await make(world, 100, { ...twoDisks, protection: '1' })
  const before = await look(world)
  const vmid = world.id(100)
  await assert.rejects(
    perform(destroyGuest, { vmid }, depsOf(world), memoryJournal()),
    /can't remove VM 100 - protection/,
  )
  await assert.rejects(
    world.guests.applyChange(vmid, change({ delete: ['scsi0'] })),
    /can't remove disk 'scsi0' - protection/,
  )
  assert.deepEqual(await look(world), before)
})

test('destroying takes disks no option names only when told to', async () => {
  await using world = await worldWithStorage()
  for (const destroyUnreferencedDisks of [false, true]) {
    await make(world, 100, { scsi0: 'local:0.01' })
    const orphan = await world.storage.allocate({
      storage: 'local',
      vmid: world.id(100),
      sizeBytes: 4096,
      format: 'raw',
    })
    await perform(destroyGuest, { vmid: 100, destroyUnreferencedDisks }, depsOf(world), memoryJournal())
    const volumes = (await world.storage.content('local')).map(({ volid }) => volid)
    assert.deepEqual(volumes, destroyUnreferencedDisks ? [] : [orphan])
    await world.storage.free(orphan)
  }
})
