/** How a node, a guest and a storage were, as written down by the loop and read by clients. */
import assert from 'node:assert/strict'
import { readFile, stat } from 'node:fs/promises'
import { after, before, test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { Observer } from '#loops/history.ts'
import { buildServices } from '../../src/services.ts'
import { type WholeNode, wholeNode } from './whole-node.ts'

let node: WholeNode
let at: string
const closing = new AsyncDisposableStack()

before(async () => {
  node = closing.use(await wholeNode())
  at = `/nodes/${node.settings.node}`
})
after(() => closing.disposeAsync())

const rows = async (path: string, timeframe: string) =>
  (await node.api('GET', `${at}${path}/rrddata`, { timeframe })).data as Record<string, number | undefined>[]

test('measurements are what the machine, the guest and the storage say at that moment', async () => {
  const made = await node.api('POST', `${at}/qemu`, { vmid: 100, memory: '32', kvm: '0', scsi0: 'local:0.01' })
  assert.equal(await node.ended(made.data), 'OK')
  assert.equal(await node.ended((await node.api('POST', `${at}/qemu/100/status/start`)).data), 'OK')
  await using services = await ownServices()
  let monotonic = 1_000
  const clock = { ...systemClock, monotonic: () => monotonic }
  const observer = new Observer({ ...services.all, clock })
  await observer.round()
  monotonic += 60_000
  await observer.round()

  const now = (await rows('', 'hour')).findLast(({ cpu }) => cpu !== undefined)
  const status = (await node.api('GET', `${at}/status`)).data as {
    memory: { total: number }
    rootfs: { total: number }
  }
  assert.equal(now?.memtotal, status.memory.total)
  assert.equal(now?.roottotal, status.rootfs.total)
  assert.ok((now?.cpu ?? -1) >= 0 && (now?.cpu ?? 2) <= 1)
  assert.ok((now?.netin ?? -1) >= 0)

  const guest = (await rows('/qemu/100', 'hour')).findLast(({ maxmem }) => maxmem !== undefined)
  assert.equal(guest?.maxmem, 32 * 1024 * 1024)
  assert.ok((guest?.memhost ?? 0) > 0)
  assert.ok((guest?.diskread ?? -1) >= 0)

  const storage = (await rows('/storage/local', 'decade')).at(-1)
  const local = (await node.api('GET', `${at}/storage/local/status`)).data as { total: number }
  assert.equal(storage?.total, local.total)
})

test('a picture shows a line where there are values, and names no column that is not measured', async () => {
  const draw = async (path: string, ds: string) =>
    ((await node.api('GET', `${at}${path}/rrd`, { timeframe: 'hour', ds })).data as { filename: string }).filename
  const picture = await readFile(await draw('', 'memtotal,memused'))
  assert.equal(picture.subarray(1, 4).toString(), 'PNG')
  for (const path of ['/qemu/100', '/storage/local']) {
    const ds = path.startsWith('/qemu') ? 'maxmem' : 'used'
    assert.ok((await stat(await draw(path, ds))).size > 100, path)
  }
  await assert.rejects(draw('', 'nonsense'), /Parameter verification failed/)
})

test('the history of a guest goes with it', async () => {
  assert.equal(await node.ended((await node.api('POST', `${at}/qemu/100/status/stop`)).data), 'OK')
  assert.equal(await node.ended((await node.api('DELETE', `${at}/qemu/100`)).data), 'OK')
  await using services = await ownServices()
  await new Observer(services.all).round()
  await assert.rejects(rows('/qemu/100', 'hour'), /does not exist/)
  const made = await node.api('POST', `${at}/qemu`, { vmid: 100 })
  assert.equal(await node.ended(made.data), 'OK')
  assert.ok((await rows('/qemu/100', 'hour')).every((row) => row.maxmem === undefined))
})

async function ownServices() {
  const all = await buildServices(node.settings, { log: silentLog, isStoreChecked: false })
  return { all, [Symbol.asyncDispose]: () => all.store[Symbol.asyncDispose]() }
}
