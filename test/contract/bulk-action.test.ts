/** Many guests at once, and the numbers they are told by: real QEMUs, tiny and with nothing to boot. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { Observer } from '#loops/history.ts'
import { buildServices } from '#services.ts'
import { callerOver } from './caller.ts'
import { type WholeNode, wholeNode } from './whole-node.ts'

const closing = new AsyncDisposableStack()
let node: WholeNode
let at: string

before(async () => {
  node = closing.use(await wholeNode())
  at = `/nodes/${node.settings.node}`
  const options = { memory: '32', vga: 'none', kvm: '0', name: 'tiny' }
  for (const guest of [
    { vmid: 421, startup: 'order=2' },
    { vmid: 420, startup: 'order=1' },
  ])
    await done('POST', `${at}/qemu`, { ...options, ...guest })
})
after(() => closing.disposeAsync())

type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'

async function done(method: Method, path: string, params: Record<string, unknown> = {}): Promise<string> {
  const upid = String((await node.api(method, path, params)).data)
  assert.equal(await node.ended(upid), 'OK', upid)
  return upid
}

/** Does it to guests, and tells of which in which order. */
async function act(verb: string, params: Record<string, unknown> = {}): Promise<string[]> {
  const upid = await done('POST', `/cluster/bulk-action/guest/${verb}`, params)
  assert.match(upid, new RegExp(`:bulk-${verb}::root@pam:$`))
  const path = `${at}/tasks/${encodeURIComponent(upid)}/log`
  const lines = (await node.api('GET', path, { limit: 0 })).data as { t: string }[]
  return lines.flatMap(({ t }) => /^VM (\d+) .*: done$/.exec(t)?.[1] ?? [])
}

async function stateOf(vmid: number): Promise<string> {
  const { qmpstatus } = (await node.api('GET', `${at}/qemu/${vmid}/status/current`)).data as { qmpstatus: string }
  return qmpstatus
}

interface Metric {
  readonly id: string
  readonly metric: string
  readonly timestamp: number
  readonly type: string
  readonly value: number
}

const exported = async (params: Record<string, unknown> = {}) =>
  ((await node.api('GET', '/cluster/metrics/export', params)).data as { data: Metric[] }).data
const of = (all: readonly Metric[], id: string) =>
  Object.fromEntries(all.filter((one) => one.id === id).map(({ metric, value }) => [metric, value]))

test('guests start, are halted, go on and shut down, each the others way round', async () => {
  const names = async (path: string) =>
    ((await node.api('GET', path)).data as { name: string }[]).map(({ name }) => name)
  assert.deepEqual(await names('/cluster/bulk-action'), ['guest'])
  assert.deepEqual(await names('/cluster/bulk-action/guest'), ['shutdown', 'start', 'suspend'])
  assert.deepEqual(await act('start', { 'max-workers': 1 }), ['420', '421'])
  assert.deepEqual([await stateOf(420), await stateOf(421)], ['running', 'running'])
  assert.deepEqual(await act('suspend', { vms: [421] }), ['421'])
  assert.deepEqual([await stateOf(420), await stateOf(421)], ['running', 'paused'])
  assert.deepEqual(await act('suspend', { vms: [421] }), [])
  assert.deepEqual(await act('start'), ['421'])
  assert.deepEqual([await stateOf(420), await stateOf(421)], ['running', 'running'])
  const toDisk = node.api('POST', '/cluster/bulk-action/guest/suspend', { 'to-disk': 1 })
  await assert.rejects(toDisk, /suspending to disk is not supported/)
})

test('what runs is told in numbers, now and how it was', async () => {
  const services = await buildServices(node.settings, { log: silentLog, isStoreChecked: false })
  closing.defer(() => services.store[Symbol.asyncDispose]())
  const now = Math.floor(systemClock.now() / 1000)
  const before = { ...systemClock, now: () => systemClock.now() - 120_000 }
  await new Observer({ ...services, clock: before }).round()

  const all = await exported()
  const guest = of(all, 'qemu/420')
  assert.equal(guest.mem_total, 32 * 2 ** 20)
  assert.equal(guest.cpu_max, 1)
  assert.ok((guest.uptime ?? -1) >= 0 && guest.net_in === 0, JSON.stringify(guest))
  const machine = of(all, `node/${node.settings.node}`)
  assert.ok((machine.mem_total ?? 0) > (machine.mem_used ?? 0) && (machine.mem_used ?? 0) > 2 ** 20)
  assert.ok((of(all, `storage/${node.settings.node}/local`).disk_total ?? 0) > 2 ** 20)
  assert.deepEqual([...new Set(all.filter(({ metric }) => metric === 'net_in').map(({ type }) => type))], ['derive'])
  assert.ok(all.every(({ timestamp }) => timestamp >= now))

  const past = (await exported({ history: 1 })).filter(({ timestamp }) => timestamp < now - 30)
  assert.equal(of(past, 'qemu/420').mem_total, 32 * 2 ** 20)
  assert.ok(past.length > 10 && past.every(({ type }) => type === 'gauge'))
  assert.deepEqual(await exported({ 'start-time': now + 3600 }), [])
  assert.deepEqual(await exported({ 'node-list': 'elsewhere' }), [])
  assert.ok((await exported({ 'node-list': `elsewhere,${node.settings.node}` })).length > 10)
})

test('who holds the right on some guests names them', async () => {
  await node.api('POST', '/access/users', { userid: 'op@pve', password: 'battery staple' })
  await node.api('PUT', '/access/acl', { path: '/vms/420', users: 'op@pve', roles: 'PVEVMUser' })
  const login = await node.api('POST', '/access/ticket', { username: 'op@pve', password: 'battery staple' })
  const { ticket, CSRFPreventionToken } = login.data as { ticket: string; CSRFPreventionToken: string }
  const asOp = callerOver(node.asFront, { Cookie: `PVEAuthCookie=${ticket}`, CSRFPreventionToken })
  const shutdown = (params: Record<string, unknown>) =>
    asOp({ method: 'POST', path: '/cluster/bulk-action/guest/shutdown', params, isUpload: false })
  assert.equal((await shutdown({})).status, 403)
  assert.equal((await shutdown({ vms: [420, 421] })).status, 403)
  const { status, body } = await shutdown({ vms: [420], timeout: 0 })
  assert.equal(status, 200)
  assert.equal(await node.ended(body.data), 'OK')
  assert.deepEqual([await stateOf(420), await stateOf(421)], ['stopped', 'running'])
  // Nothing in these guests listens to the power button.
  await act('start')
  assert.deepEqual(await act('shutdown', { timeout: 0, maxworkers: 1 }), ['421', '420'])
})
