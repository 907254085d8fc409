/** Storage on btrfs: the contract of all drivers, on a real file system, and what only this one does. */
import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { after, before, suite, test, type TestContext } from 'node:test'
import { GiB, MiB } from '#base/bytes.ts'
import type { Fault } from '#base/fault.ts'
import { asVmid, type VolumeId } from '#base/ids.ts'
import { createSubvolume, subvolumesIn } from '#host/disks/btrfs.ts'
import { machine } from '#host/exec.ts'
import { type BtrfsDisk, btrfsDisk } from '../../../test/fixtures/btrfs-disk.ts'
import { conformance } from '../conformance.ts'
import { contentOf, writeInto } from '../image-content.ts'
import { type SmallStorage, smallStorage } from '../small-storage.ts'
import type { ImageName, TreeName } from '../volume.ts'
import { btrfs } from './btrfs.ts'

const host = machine()
let large: BtrfsDisk

before(async () => {
  large = await btrfsDisk(GiB)
})
after(() => large[Symbol.asyncDispose]())

let places = 0
async function place(): Promise<string> {
  places += 1
  return join(large.path, `${places}`)
}

async function tightPlace(t: TestContext): Promise<string> {
  const disk = await btrfsDisk(24 * MiB, { isTight: true })
  t.after(() => disk[Symbol.asyncDispose]())
  return disk.path
}

conformance(btrfs, {
  place: async () => ({ path: await place() }),
  tightPlace: async (t) => ({ path: await tightPlace(t) }),
})

suite('a btrfs storage', () => {
  test('lies where PVE would look for it', async () => {
    const path = await place()
    const { images, trees } = open({ path })
    assert.equal(images?.path(disk), `${path}/images/100/vm-100-disk-0/disk.raw`)
    assert.equal(images?.path({ ...disk, format: 'qcow2' }), `${path}/images/100/vm-100-disk-0.qcow2`)
    assert.equal(images?.snapshots?.pathOf?.(disk, 'one'), `${path}/images/100/vm-100-disk-0@one/disk.raw`)
    assert.equal(trees?.path(tree), `${path}/images/100/subvol-100-disk-0.subvol`)
    assert.equal(trees?.snapshots?.pathOf(tree, 'one'), `${path}/images/100/subvol-100-disk-0.subvol@one`)
  })

  test('is not made, and not used, elsewhere', async () => {
    const path = join(dirname(large.path), 'plain')
    await assert.rejects(open({ path }).prepare(), (fault: Fault) => {
      assert.deepEqual(fault.fields, { path: `'${path}' is not on a btrfs file system` })
      return true
    })
    await assert.rejects(open({ path }).requireActive(), /'.*plain' is not on a btrfs file system/)
    await assert.rejects(open({ path, is_mountpoint: 'yes' }).requireActive(), /nothing is mounted on/)
  })

  test('writes images in place where its owner wants that', async () => {
    for (const nocow of [true, false]) {
      const { images } = await ready({ nocow })
      await images.create(disk, { sizeBytes: MiB })
      const { stdout } = await host.run(['lsattr', images.path(disk)])
      assert.equal(/^\S*C/.test(stdout), nocow, stdout)
    }
  })

  test('a copy of a raw image shares its blocks', async (t) => {
    await using lab = await smallStorage()
    const { service } = lab
    await service.create({ storage: 'btr', type: 'btrfs', path: await place() })
    const source = await service.allocate({ storage: 'btr', vmid: asVmid(100), sizeBytes: 48 * MiB, format: 'raw' })
    const { path } = await service.location(source)
    await host.run(['dd', 'if=/dev/urandom', `of=${path}`, 'bs=1M', 'count=48', 'conv=notrunc,fsync'])
    const copy = await service.copy({ source, storage: 'btr', vmid: asVmid(101), format: 'raw' })
    const copied = (await service.location(copy)).path
    assert.deepEqual(await readFile(copied), await readFile(path))
    const { stdout } = await host.run(['btrfs', 'filesystem', 'du', '--raw', '-s', '--', copied])
    assert.match(stdout, new RegExp(`^\\s*${48 * MiB}\\s+0\\s`, 'm'), 'nothing of it is its own')
    await service.update('btr', { set: { preallocation: 'falloc' } })
    const laidOut = await service.copy({ source, storage: 'btr', vmid: asVmid(103), format: 'raw' })
    const own = await host.run([
      'btrfs',
      'filesystem',
      'du',
      '--raw',
      '-s',
      '--',
      (await service.location(laidOut)).path,
    ])
    assert.match(own.stdout, new RegExp(`^\\s*${48 * MiB}\\s+${48 * MiB}\\s`, 'm'), 'all of it is its own')
    await service.snapshots(source).then(({ take }) => take('then'))
    await writeInto(path, 'raw', 'N')
    const kept = await service.copy({ source, snapshot: 'then', storage: 'btr', vmid: asVmid(102), format: 'qcow2' })
    assert.deepEqual(await contentOf(t, (await service.location(kept)).path, 'qcow2'), await readFile(copied))
    await assert.rejects(
      service.copy({ source, snapshot: 'never', storage: 'btr', vmid: asVmid(102), format: 'raw' }),
      {
        message: `snapshot 'never' of volume '${source}' does not exist`,
      },
    )
  })

  test('kill -9 while an image is replaced leaves the old one, and a sweep removes the rest', async () => {
    const driver = await ready({})
    await driver.images.create(disk, { sizeBytes: MiB, fill: (path) => writeInto(path, 'raw', 'A') })
    // As a process leaves it that wrote here and is no more.
    await writeFile(join(dirname(driver.images.path(disk)), '.new-999999999-1-1.raw'), 'half')
    assert.equal((await driver.images.list()).length, 1)
    assert.deepEqual(await driver.sweep(), ['.new-999999999-1-1.raw'])
  })

  test('a tree with subvolumes of its own is not snapshotted, and goes with all of them', async () => {
    const { trees } = await ready({})
    await trees.create(tree, async () => {})
    await createSubvolume(host, join(trees.path(tree), 'inner'))
    await createSubvolume(host, join(trees.path(tree), 'inner/deep'))
    for (const act of [
      () => trees.snapshots?.take(tree, 'one'),
      () => trees.links?.freeze(tree),
      () => trees.copies?.copy({ ...tree, base: 'subvol-100-disk-1' }, { name: tree }),
    ]) {
      await assert.rejects(async () => act(), /holds subvolumes of its own, which a snapshot of it would not: .*inner/)
    }
    assert.equal((await trees.list()).length, 1)
    await trees.remove(tree)
    assert.deepEqual(await trees.list(), [])
    assert.ok(!(await subvolumesIn(host, large.path)).some(({ path }) => path.endsWith('deep')))
  })

  test('a tree is given a size, and a larger one, and never less', async () => {
    await using lab = await smallStorage()
    const { service } = lab
    await service.create({ storage: 'btr', type: 'btrfs', path: await place() })
    const volid = await service.plantTree('btr', asVmid(100), async () => {}, 64 * MiB)
    await service.resize(volid, 96 * MiB)
    assert.equal((await service.describe(volid)).sizeBytes, 96 * MiB)
    await assert.rejects(service.resize(volid, 32 * MiB), (fault: Fault) => {
      assert.deepEqual(fault.fields, { size: 'shrinking disks is not supported (it has 96.0 MiB)' })
      return true
    })
    const endless = await service.plantTree('btr', asVmid(100), async () => {})
    await assert.rejects(service.resize(endless, 32 * MiB), (fault: Fault) =>
      /no size of its own/.test(fault.fields?.size ?? ''),
    )
    const plain = await plantedOnFolder(lab)
    await assert.rejects(service.resize(plain, 32 * MiB), (fault: Fault) =>
      /no size of its own/.test(fault.fields?.size ?? ''),
    )
    await assert.rejects(
      service.plantTree('plain', asVmid(100), async () => {}, MiB),
      (fault: Fault) => /to a size/.test(fault.fields?.size ?? ''),
    )
  })

  test('trees go from one storage to another as streams, and a stream that breaks leaves nothing', async () => {
    await using lab = await smallStorage()
    const { service } = lab
    await using another = await btrfsDisk(256 * MiB)
    const other = another.path
    await service.create({ storage: 'from', type: 'btrfs', path: await place() })
    await service.create({ storage: 'to', type: 'btrfs', path: other })
    const source = await service.plantTree('from', asVmid(100), async (path) => {
      await writeFile(join(path, 'large'), Buffer.alloc(2 * MiB, 'x'))
    })
    let most = 0
    const request = { source, storage: 'to', vmid: asVmid(101), onBytes: (bytes: number) => (most = bytes) }
    const copy = await service.copyTree(request)
    assert.ok(copy)
    assert.equal((await readFile(join((await service.location(copy)).path, 'large'))).length, 2 * MiB)
    assert.ok(most > 2 * MiB)
    const gone = new AbortController()
    const broken = service.copyTree({ ...request, onBytes: () => gone.abort(), signal: gone.signal })
    await assert.rejects(broken, { name: 'AbortError' })
    const left = open({ path: other })
    assert.equal((await left.trees?.list())?.length, 1)
    assert.deepEqual([await left.sweep(), await subvolumesIn(host, other).then((all) => all.length)], [[], 1])
    // A folder has no such way: its files are copied one by one.
    const plain = { source: await plantedOnFolder(lab), storage: 'to', vmid: asVmid(101) }
    assert.equal(await service.copyTree(plain), undefined)
  })
})

const disk: ImageName = { kind: 'image', vmid: asVmid(100), base: 'vm-100-disk-0', format: 'raw' }
const tree: TreeName = { kind: 'tree', vmid: asVmid(100), base: 'subvol-100-disk-0' }
const open = (options: Readonly<Record<string, unknown>>) => btrfs.open(options, { host, storage: 'btr' })

async function ready(options: Readonly<Record<string, unknown>>) {
  const driver = open({ path: await place(), ...options })
  await driver.prepare()
  const { images, trees, sweep } = driver
  assert.ok(images && trees)
  return { images, trees, sweep }
}

async function plantedOnFolder({ service, folder: below }: SmallStorage): Promise<VolumeId> {
  await service.create({ storage: 'plain', type: 'dir', path: join(below, 'plain') })
  return service.plantTree('plain', asVmid(100), async () => {})
}
