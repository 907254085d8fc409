/** A world of guests whose disks are looked into: what they hold, and which snapshots are in them. */
import { createHash } from 'node:crypto'
import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { PathRights } from '#access/path-rights.ts'
import { AccessState } from '#access/world.ts'
import { systemClock } from '#base/clock.ts'
import { asVolumeId, type VolumeId } from '#base/ids.ts'
import type { Options } from '#guests/config.ts'
import { convertLayers } from '#host/qemu/qemu-img-layers.ts'
import { PoolService } from '#pools/service.ts'
import { snapshotTags } from '#storage/image-header.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import type { AnyOperation } from '#tasks/registry.ts'
import { copiesOf, type GuestWorld, guestWorld, machineOfOneVersion } from './qemu-world.ts'

const host = machineOfOneVersion()
/** The size of every disk here. */
export const diskBytes = 1024 * 1024

export async function diskWorld(): Promise<GuestWorld> {
  const world = await guestWorld({ forgetful: true })
  await world.addStorage()
  return world
}

/** For `everyStepFails`: worlds that are prepared alike, in which `begin` has happened. */
export function placesLike(
  make: () => Promise<GuestWorld>,
  params: object,
  begin: (world: GuestWorld) => Promise<unknown> = async () => {},
) {
  const another = copiesOf(make, guestWorld)
  return async () => {
    const world = await another()
    await begin(world)
    return {
      params: { vmid: 100, ...params } as never,
      deps: depsOf(world),
      look: () => look(world),
      [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
    }
  }
}

export const depsOf = ({ guests, storage, store, settings }: GuestWorld) => ({
  settings,
  guests,
  storage,
  store,
  host,
  pools: new PoolService({ store, rightsMark: 'mark' }),
  rights: new PathRights({ accessState: new AccessState(store) }),
  // The same in every world, so that two of them can be compared.
  clock: { ...systemClock, now: () => 1_800_000_000_000 },
  random: {
    bytes: (count: number) => new Uint8Array(count).fill(7),
    uuid: () => '8c3f1b1e-9a55-4c9e-8d8e-27f3b3a1a001',
  },
})

let runs = 0

/** Runs an operation as a task of its own. */
export function run(world: GuestWorld, which: AnyOperation, params: object): Promise<object> {
  runs += 1
  const task = taskOf(`UPID:${which.name}:${runs}`)
  return perform(which as never, params as never, depsOf(world) as never, memoryJournal(), { task })
}

export const taskOf = (upid: string) => ({ upid, user: 'root@pam', node: 'testnode', startTime: 0 })

/** A disk of the guest, full of one letter. */
export async function addDisk(
  world: GuestWorld,
  vmid: number,
  format: 'raw' | 'qcow2',
  letter: string,
): Promise<VolumeId> {
  const volid = await world.storage.allocate({
    storage: 'local',
    vmid: world.id(vmid),
    sizeBytes: diskBytes,
    format,
  })
  await fill(world, volid, letter)
  return volid
}

/** Writes a letter all over a disk nobody has open. */
export async function fill({ storage }: GuestWorld, volid: VolumeId, letter: string): Promise<void> {
  const [top] = (await storage.layers(volid)).layers
  await host.run(['qemu-io', '-f', top.format, '-c', `write -P ${letter.charCodeAt(0)} 0 ${diskBytes}`, top.path])
}

/** What a disk holds, as its letters in order without repetition: `A` when it is full of them. */
export async function lettersOf(world: GuestWorld, volid: VolumeId): Promise<string> {
  return (await contentOf(world, volid))
    .toString('latin1')
    .replaceAll(/(.)\1*/gs, '$1')
    .replaceAll('\0', '0')
}

async function contentOf({ settings, storage }: GuestWorld, volid: VolumeId): Promise<Buffer> {
  const { layers, sizeBytes } = await storage.layers(volid)
  const target = join(settings.stateDir, 'content.raw')
  await rm(target, { force: true })
  await host.run(['truncate', '-s', String(sizeBytes), target])
  // A guest that has the disk open does not write to it in these tests.
  const reading = { run: ((argv, how) => host.run(shared(argv), how)) as typeof host.run }
  await convertLayers(reading, { layers, target: { path: target, format: 'raw' }, isTargetZero: true })
  return readFile(target)
}

function shared(argv: Parameters<typeof host.run>[0]): Parameters<typeof host.run>[0] {
  const [program, verb = '', ...rest] = argv
  return [program, verb, '--force-share', ...rest]
}

/** Guests, files, and what is in each disk: equal when the world is the same. */
export async function look(world: GuestWorld): Promise<object> {
  const { guests, filesOfStorage } = world
  const disks = await disksOf(world)
  const all = []
  for (const { vmid, options, state, lock } of await guests.list()) {
    const { snapshots, running } = lock === undefined ? await guests.config(vmid) : {}
    all.push({ vmid, options, snapshots, running, lock, state: state.state, nodes: await nodesOf(world, vmid) })
  }
  const pools = (await world.store.get('pools'))?.value
  return { guests: all, disks, pools, files: await filesOfStorage() }
}

interface Disk {
  readonly volid: VolumeId
  readonly sizeBytes: number
  readonly tags: readonly string[]
  readonly content: string
}

const seen = new Map<string, readonly Disk[]>()

/** What is found in the disks follows from the names and bytes of their files, so `qemu-img` is asked once about the same. */
async function disksOf(world: GuestWorld): Promise<readonly Disk[]> {
  const { settings, storage, filesOfStorage } = world
  const files = await Promise.all(
    (await filesOfStorage()).map(async (name) => [name, digest(await readFile(join(settings.stateDir, name)))]),
  )
  const key = JSON.stringify(files)
  const known = seen.get(key)
  if (known) return known
  const disks: Disk[] = []
  for (const { volid } of await storage.content('local')) {
    const [top] = (await storage.layers(volid)).layers
    const tags = top.format === 'qcow2' ? await snapshotTags(top.path) : []
    const { sizeBytes } = await storage.describe(volid)
    disks.push({ volid, sizeBytes, tags, content: digest(await contentOf(world, volid)) })
  }
  seen.set(key, disks)
  return disks
}

function digest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, 24)
}

/** What a running guest's QEMU has open, by node and by device; jobs and exports too. */
async function nodesOf({ guests }: GuestWorld, vmid: Parameters<GuestWorld['guests']['config']>[0]): Promise<unknown> {
  if (!(await guests.isRunning(vmid))) return undefined
  await using monitor = await guests.qmp(vmid)
  const nodes = await monitor.execute<{ 'node-name': string; file: string }[]>('query-named-block-nodes', {
    flat: true,
  })
  return {
    files: [...new Set(nodes.map(({ file }) => file.split('/').at(-1)))].filter((file) => !file?.startsWith('json:')),
    jobs: await monitor.execute('query-jobs'),
    exports: await monitor.execute('query-block-exports'),
    status: (await monitor.execute<{ status: string }>('query-status')).status,
  }
}

export function volumeAt(options: Options, drive: string): VolumeId {
  return asVolumeId((options[drive] ?? '').split(',')[0] ?? '')
}
