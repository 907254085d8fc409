import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { asVmid, asVolumeId } from '#base/ids.ts'
import { type SmallStorage, smallStorage } from '#storage/small-storage.ts'
import { type ContentSources, storageContent, volumeFacts } from './storage-content.ts'
import { nodeStorages, visibleStorages } from './storage-list.ts'
import { holds, type May, toChange, toRead } from './volume-access.ts'

const everything: May = async () => true
const nothing: May = async () => false
/** Holds exactly these, written `/storage/local Datastore.Audit`. */
const only =
  (...rights: readonly string[]): May =>
  async (path, ...privileges) =>
    privileges.every((privilege) => rights.includes(`${path} ${privilege}`))

const point = (type: 'vm' | 'ct', vmid: number, time: string) => ({
  volid: asVolumeId(`local:backup/${type}/${vmid}/${time}`),
  type,
  vmid,
  ctime: Date.parse(time) / 1000,
  sizeBytes: 64 * MiB,
  notes: 'before the upgrade',
  protected: true,
})
const points = [point('vm', 100, '2026-11-20T10:00:00Z'), point('ct', 101, '2026-11-20T11:00:00Z')]

async function sources(): Promise<ContentSources & AsyncDisposable & { lab: SmallStorage }> {
  const lab = await smallStorage()
  for (const vmid of [100, 101]) {
    await lab.service.allocate({ storage: 'local', vmid: asVmid(vmid), sizeBytes: MiB, format: 'raw' })
  }
  for (const [content, fileName] of [
    ['iso', 'a.iso'],
    ['snippets', 'secret.yaml'],
  ] as const) {
    const source = join(lab.folder, fileName)
    await writeFile(source, 'x')
    await lab.service.stageFile({ storage: 'local', content, fileName, source, mark: 'one' })
    await lab.service.publishFile(asVolumeId(`local:${content}/${fileName}`), 'one')
  }
  const backup = {
    list: async ({ vmid }: { vmid?: number }) => points.filter((one) => vmid === undefined || one.vmid === vmid),
  }
  const guests = { containers: async () => new Set([102]) }
  return { lab, storage: lab.service, backup, guests, [Symbol.asyncDispose]: () => lab[Symbol.asyncDispose]() }
}

const volids = (items: readonly { volid: string }[]) => items.map(({ volid }) => volid.replace('local:', ''))

suite('the content of a storage', () => {
  test('is volumes and restore points in one list', async () => {
    await using from = await sources()
    const items = await storageContent(from, { storage: 'local' }, everything)
    assert.deepEqual(volids(items), [
      'backup/ct/101/2026-11-20T11:00:00Z',
      'backup/vm/100/2026-11-20T10:00:00Z',
      '100/vm-100-disk-0.raw',
      '101/vm-101-disk-0.raw',
      'iso/a.iso',
      'snippets/secret.yaml',
    ])
    assert.deepEqual([items[0]?.format, items[0]?.subtype], ['hako-ct', 'lxc'])
    assert.deepEqual(items[1], {
      volid: 'local:backup/vm/100/2026-11-20T10:00:00Z',
      content: 'backup',
      format: 'hako-vm',
      subtype: 'qemu',
      size: 64 * MiB,
      vmid: 100,
      ctime: 1_795_168_800,
      notes: 'before the upgrade',
      protected: true,
    })
  })

  test('can be asked for one content, one guest, or both', async () => {
    await using from = await sources()
    const of = async (filter: object) => volids(await storageContent(from, { storage: 'local', ...filter }, everything))
    assert.deepEqual(await of({ content: 'iso' }), ['iso/a.iso'])
    assert.deepEqual(await of({ vmid: 101 }), ['backup/ct/101/2026-11-20T11:00:00Z', '101/vm-101-disk-0.raw'])
    assert.deepEqual(await of({ content: 'backup', vmid: 100 }), ['backup/vm/100/2026-11-20T10:00:00Z'])
    assert.deepEqual(await of({ content: 'import' }), [])
    assert.deepEqual(await of({ content: 'images' }), ['100/vm-100-disk-0.raw', '101/vm-101-disk-0.raw'])
  })

  test('tells images of containers from disks by their guest', async () => {
    await using from = await sources()
    const path = join(from.lab.folder, 'containers')
    await from.lab.service.create({ storage: 'containers', type: 'dir', path, content: 'rootdir' })
    const how = { storage: 'containers', sizeBytes: MiB, format: 'raw', content: 'rootdir' } as const
    for (const vmid of [100, 102]) await from.lab.service.allocate({ ...how, vmid: asVmid(vmid) })
    await from.lab.service.plantTree('containers', asVmid(102), async () => {})
    const listed = await storageContent(from, { storage: 'containers', content: 'rootdir' }, everything)
    const names = listed.map(({ volid, content, format }) => [volid.replace('containers:', ''), content, format])
    assert.deepEqual(names, [
      ['102/subvol-102-disk-0.subvol', 'rootdir', 'subvol'],
      ['102/vm-102-disk-0.raw', 'rootdir', 'raw'],
    ])
  })

  test('is reduced to what the caller may see', async () => {
    await using from = await sources()
    const seen = async (...rights: readonly string[]) =>
      volids(await storageContent(from, { storage: 'local' }, only(...rights)))
    assert.deepEqual(await seen(), [])
    assert.deepEqual(await seen('/storage/local Datastore.Audit'), ['iso/a.iso'])
    assert.deepEqual(await seen('/vms/100 VM.Config.Disk'), ['100/vm-100-disk-0.raw'])
    assert.deepEqual(await seen('/vms/101 VM.Backup'), [], 'a backup also needs space on the storage')
    assert.deepEqual(await seen('/vms/101 VM.Backup', '/storage/local Datastore.AllocateSpace'), [
      'backup/ct/101/2026-11-20T11:00:00Z',
      'iso/a.iso',
    ])
    assert.equal((await seen('/storage/local Datastore.Allocate')).length, 6)
  })

  test('is told one by one, with the place of each', async () => {
    await using from = await sources()
    const disk = await volumeFacts(from, asVolumeId('local:100/vm-100-disk-0.raw'))
    assert.equal(disk.path, join(from.lab.folder, 'storage/images/100/vm-100-disk-0.raw'))
    assert.deepEqual([disk.format, disk.size], ['raw', MiB])
    const backup = await volumeFacts(from, asVolumeId('local:backup/vm/100/2026-11-20T10:00:00Z'))
    assert.deepEqual(backup, {
      path: 'vm/100/2026-11-20T10:00:00Z',
      format: 'hako-vm',
      size: 64 * MiB,
      used: 64 * MiB,
      notes: 'before the upgrade',
      protected: true,
    })
    for (const gone of ['local:iso/gone.iso', 'local:backup/vm/100/2020-01-01T00:00:00Z']) {
      await assert.rejects(volumeFacts(from, asVolumeId(gone)), /does not exist/)
    }
  })
})

test('removing takes more than looking', async () => {
  const iso = asVolumeId('local:iso/a.iso')
  const backup = asVolumeId('local:backup/vm/100/2026-11-20T10:00:00Z')
  const user = only('/storage/local Datastore.AllocateSpace', '/vms/100 VM.Backup', '/vms/100 VM.Config.Disk')
  assert.equal(await holds(toRead(iso), user), true)
  assert.equal(await holds(toChange(iso), user), false)
  assert.equal(await holds(toChange(asVolumeId('local:100/vm-100-disk-0.raw')), user), false)
  assert.equal(await holds(toChange(backup), user), true)
  assert.equal(await holds(toChange(iso), only('/storage/local Datastore.Allocate')), true)
})

suite('the storages of a node', () => {
  test('are told with their room and formats', async () => {
    await using lab = await smallStorage()
    const items = await nodeStorages(lab.service, { node: 'lab', format: true }, everything)
    const { total, used, avail, used_fraction: fraction, content, ...rest } = items[0] ?? {}
    assert.deepEqual(rest, {
      storage: 'local',
      type: 'dir',
      active: true,
      enabled: true,
      shared: false,
      formats: { default: 'raw', supported: ['raw', 'qcow2'] },
    })
    assert.equal(content, 'images,iso,vztmpl,snippets,import,backup')
    assert.ok(total && used && avail && fraction && fraction > 0 && fraction < 1)
  })

  test('can be asked for by content, name, node and state, and are reduced to what the caller may use', async () => {
    await using lab = await smallStorage()
    const { service, folder } = lab
    await service.create({ storage: 'off', type: 'dir', path: join(folder, 'off'), content: 'iso', disable: true })
    await service.create({ storage: 'far', type: 'dir', path: join(folder, 'far'), nodes: 'other' })
    const names = async (query: object, may: May = everything) =>
      (await nodeStorages(service, { node: 'lab', ...query }, may)).map(({ storage }) => storage)
    assert.deepEqual(await names({}), ['local', 'off'])
    assert.deepEqual(await names({ enabled: true }), ['local'])
    assert.deepEqual(await names({ content: 'images' }), ['local'])
    assert.deepEqual(await names({ storage: 'off' }), ['off'])
    assert.deepEqual(await names({ node: 'other' }), ['far', 'local', 'off'])
    assert.deepEqual(await names({ node: 'other', target: 'lab' }), ['local', 'off'])
    assert.deepEqual(await names({}, nothing), [])
    assert.deepEqual(await names({}, only('/storage/off Datastore.AllocateSpace')), ['off'])
    const visible = await visibleStorages(service, 'dir', only('/storage/far Datastore.Audit'))
    assert.deepEqual(
      visible.map(({ name }) => name),
      ['far'],
    )
  })
})
