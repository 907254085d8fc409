/** Disks of a node over its API: a loop device it was given, held against what the kernel and the tools say. */
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { after, before, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { blockDevice } from '#host/disks/block-devices.ts'
import { machine } from '#host/exec.ts'
import { parsePools } from '#host/disks/zfs.ts'
import { parseThinPools } from '#host/disks/lvm.ts'
import { type LoopDisk, loopDisk } from '../fixtures/loop-disk.ts'
import { type WholeNode, wholeNode } from './whole-node.ts'

const host = machine()
const closing = new AsyncDisposableStack()
let node: WholeNode
let disk: LoopDisk
let at: string

before(async () => {
  disk = closing.use(await loopDisk(24 * MiB))
  node = closing.use(await wholeNode({ devices: [disk.path] }))
  at = `/nodes/${node.settings.node}/disks`
})
after(() => closing.disposeAsync())

const get = async <T>(path: string) => (await node.api('GET', `${at}/${path}`)).data as T
async function done(method: 'POST' | 'PUT' | 'DELETE', path: string, params: Record<string, unknown>): Promise<void> {
  const { data } = await node.api(method, `${at}/${path}`, params)
  assert.equal(await node.ended(data), 'OK')
}

test('a disk becomes a folder with a storage, and blank again', async () => {
  await done('POST', 'directory', { name: 'fast', device: disk.path, add_storage: 1 })
  const [found] = await get<{ path: string; device: string; type: string }[]>('directory')
  assert.ok(found)
  assert.match(await readFile('/proc/self/mountinfo', 'utf8'), new RegExp(` ${found.path} .* - ext4 ${disk.path} `))
  assert.equal(found.device, `/dev/disk/by-uuid/${(await blockDevice(host, disk.path)).uuid ?? ''}`)
  const { data } = await node.api('GET', `/nodes/${node.settings.node}/storage/fast/status`)
  assert.equal((data as { active: number }).active, 1)
  const wiping = await node.api('PUT', `${at}/wipedisk`, { disk: disk.path })
  assert.match(await node.ended(wiping.data), new RegExp(`is mounted on '${found.path}'`))
  await done('DELETE', 'directory/fast', { 'cleanup-config': 1, 'cleanup-disks': 1 })
  assert.deepEqual(await get('directory'), [])
  await assert.rejects(node.api('GET', '/storage/fast'), /storage 'fast' does not exist/)
  assert.equal((await blockDevice(host, disk.path)).fileSystem, undefined)
})

test('a disk becomes a volume group LVM knows, and blank again', async () => {
  const name = `hkc${process.pid}`
  await done('POST', 'lvm', { name, device: disk.path })
  const tree = await get<{ children: { name: string; size: number; free: number; children: { name: string }[] }[] }>(
    'lvm',
  )
  const group = tree.children.find((one) => one.name === name)
  assert.ok(group)
  const { stdout } = await host.run([
    'vgs',
    '--noheadings',
    '--units',
    'b',
    '--nosuffix',
    '-o',
    'vg_size,vg_free',
    name,
  ])
  assert.deepEqual(stdout.trim().split(/\s+/).map(Number), [group.size, group.free])
  assert.deepEqual(
    group.children.map((one) => one.name),
    [disk.path],
  )
  const scanned = (await node.api('GET', `${at.replace('disks', 'scan')}/lvm`)).data as { vg: string }[]
  assert.ok(scanned.some(({ vg }) => vg === name))
  await done('DELETE', `lvm/${name}`, { 'cleanup-disks': 1 })
  assert.equal((await host.run(['vgs', name], { okCodes: [5] })).code, 5)
  assert.equal((await blockDevice(host, disk.path)).fileSystem, undefined)
})

test('an empty disk gets a partition table and loses it', async () => {
  await done('POST', 'initgpt', { disk: disk.path })
  assert.equal((await blockDevice(host, disk.path)).partitionTable, 'gpt')
  await done('PUT', 'wipedisk', { disk: disk.path })
  assert.equal((await blockDevice(host, disk.path)).partitionTable, undefined)
})

test('a disk nobody gave the node is refused before a task begins', async () => {
  await using other = await loopDisk(MiB)
  const refusal = /belongs to the machine, which this node shares with others/
  await assert.rejects(node.api('PUT', `${at}/wipedisk`, { disk: other.path }), refusal)
  await assert.rejects(node.api('POST', `${at}/lvm`, { name: 'other', device: other.path }), refusal)
  await assert.rejects(node.api('POST', `${at}/directory`, { name: 'other', device: '/dev/no-such' }), /does not exist/)
})

test('thin pools and pools of ZFS are read as their tools print them', async () => {
  assert.deepEqual(await get('zfs'), [])
  assert.deepEqual(await get('lvmthin'), [])
  const lvs = `{"report":[{"lv":[{"lv_name":"data","vg_name":"pve","lv_size":"1000","lv_metadata_size":"200",
    "data_percent":"12.50","metadata_percent":"1.00"}]}]}`
  const pool = { name: 'data', group: 'pve', sizeBytes: 1000, usedBytes: 125, metadataBytes: 200, metadataUsedBytes: 2 }
  assert.deepEqual(parseThinPools(lvs), [pool])
  const zpool = 'tank\t10200547328\t98304\t10200449024\t0\t1.00\tONLINE\nold\t10\t1\t9\t-\t1.00x\tFAULTED\n'
  assert.deepEqual(
    parsePools(zpool).map(({ name, sizeBytes, fragmentation, dedup, health }) => [
      name,
      sizeBytes,
      fragmentation,
      dedup,
      health,
    ]),
    [
      ['tank', 10_200_547_328, 0, 1, 'ONLINE'],
      ['old', 10, 0, 1, 'FAULTED'],
    ],
  )
})
