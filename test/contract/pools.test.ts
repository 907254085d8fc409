/** Pools as clients use them: by query and by path, with guests and storages in them, and rights on all of these at once. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { callerOver } from './caller.ts'
import type { Caller } from './samples.ts'
import { type WholeNode, wholeNode } from './whole-node.ts'

let node: WholeNode
let asDeveloper: Caller
const closing = new AsyncDisposableStack()

before(async () => {
  node = closing.use(await wholeNode())
  asDeveloper = await personWith('developer@pve')
})
after(() => closing.disposeAsync())

async function personWith(username: string): Promise<Caller> {
  const { api, asFront } = node
  await api('POST', '/access/users', { userid: username, password: 'battery staple' })
  const login = (await api('POST', '/access/ticket', { username, password: 'battery staple' })).data as {
    ticket: string
    CSRFPreventionToken: string
  }
  const { ticket, CSRFPreventionToken } = login
  return callerOver(asFront, { Cookie: `PVEAuthCookie=${ticket}`, CSRFPreventionToken })
}

const as = (
  who: Caller,
  method: 'GET' | 'POST' | 'PUT' | 'DELETE',
  path: string,
  params: Record<string, unknown> = {},
) => who({ method, path, params, isUpload: false })

async function makeGuest(params: Record<string, unknown>): Promise<void> {
  const { api, settings, ended } = node
  assert.equal(await ended((await api('POST', `/nodes/${settings.node}/qemu`, params)).data), 'OK')
}

test('a pool is made, filled, asked for by query and by path, emptied and deleted', async () => {
  const { api, settings } = node
  await api('POST', '/pools', { poolid: 'web', comment: 'shop' })
  await api('POST', '/pools', { poolid: 'web/front' })
  await makeGuest({ vmid: 100, name: 'one', pool: 'web', scsi0: 'local:0.01' })
  await makeGuest({ vmid: 101, name: 'two' })
  await api('PUT', '/pools', { poolid: 'web/front', vms: '101', storage: 'local' })

  const list = (await api('GET', '/pools')).data
  assert.deepEqual(list, [{ poolid: 'web', comment: 'shop' }, { poolid: 'web/front' }])
  const byPath = (await api('GET', '/pools/web')).data as { comment: string; members: Record<string, unknown>[] }
  assert.equal(byPath.comment, 'shop')
  assert.deepEqual(
    byPath.members.map(({ id, vmid, type, name, node: at, pool }) => ({ id, vmid, type, name, at, pool })),
    [{ id: 'qemu/100', vmid: 100, type: 'qemu', name: 'one', at: settings.node, pool: 'web' }],
  )
  const [byQuery] = (await api('GET', '/pools', { poolid: 'web/front' })).data as [{ members: { id: string }[] }]
  assert.deepEqual(
    byQuery.members.map(({ id }) => id),
    ['qemu/101', `storage/${settings.node}/local`],
  )
  const [onlyStorages] = (await api('GET', '/pools', { poolid: 'web/front', type: 'storage' })).data as [
    { members: { id: string }[] },
  ]
  assert.equal(onlyStorages.members.length, 1)

  const resources = (await api('GET', '/cluster/resources')).data as { id: string; pool?: string }[]
  assert.equal(resources.find(({ id }) => id === 'qemu/100')?.pool, 'web')
  assert.ok(resources.some(({ id }) => id === '/pool/web/front'))

  await assert.rejects(api('PUT', '/pools/web', { vms: '101' }), /belongs already to pool 'web\/front'/)
  await api('PUT', '/pools/web', { vms: '101', 'allow-move': 1, comment: 'shops' })
  await assert.rejects(api('DELETE', '/pools/web'), /is not empty/)
  await api('PUT', '/pools', { poolid: 'web', vms: '100,101', delete: 1 })
  await api('PUT', '/pools', { poolid: 'web/front', storage: 'local', delete: 1 })
  await api('DELETE', '/pools', { poolid: 'web/front' })
  await api('DELETE', '/pools/web')
  assert.deepEqual((await api('GET', '/pools')).data, [])
})

test('what does not exist is neither a pool nor a member', async () => {
  const { api, settings } = node
  await api('POST', '/pools', { poolid: 'empty' })
  await assert.rejects(api('GET', '/pools/nothing'), /pool 'nothing' does not exist/)
  await assert.rejects(api('PUT', '/pools', { poolid: 'empty', vms: '999' }), /999\.conf' does not exist/)
  await assert.rejects(api('PUT', '/pools', { poolid: 'empty', storage: 'gone' }), /storage 'gone' does not exist/)
  const guest = { vmid: 199, pool: 'nothing' }
  await assert.rejects(api('POST', `/nodes/${settings.node}/qemu`, guest), /pool 'nothing' does not exist/)
  await api('DELETE', '/pools/empty')
})

test('rights on a pool are rights on its members, for as long as they are members', async () => {
  const { api, settings } = node
  const at = `/nodes/${settings.node}/qemu`
  await api('POST', '/pools', { poolid: 'dev' })
  await makeGuest({ vmid: 110, name: 'ours', pool: 'dev' })
  await makeGuest({ vmid: 111, name: 'theirs' })
  await api('PUT', '/access/acl', { path: '/pool/dev', roles: 'PVEAdmin', users: 'developer@pve' })
  const seen = async () => ((await as(asDeveloper, 'GET', at)).body.data as { vmid: number }[]).map(({ vmid }) => vmid)

  assert.deepEqual(await seen(), [110])
  assert.equal((await as(asDeveloper, 'PUT', `${at}/110/config`, { memory: '64' })).status, 200)
  assert.equal((await as(asDeveloper, 'PUT', `${at}/111/config`, { memory: '64' })).status, 403)
  // Putting a guest into one's own pool would be taking it.
  assert.equal((await as(asDeveloper, 'PUT', '/pools/dev', { vms: '111' })).status, 403)

  await api('PUT', '/pools/dev', { vms: '110', delete: 1 })
  assert.deepEqual(await seen(), [])
  assert.equal((await as(asDeveloper, 'PUT', `${at}/110/config`, { memory: '128' })).status, 403)
})

test('who may make guests in a pool makes them there and nowhere else', async () => {
  const { settings, ended } = node
  const at = `/nodes/${settings.node}/qemu`
  assert.equal((await as(asDeveloper, 'POST', at, { vmid: 120, memory: '64' })).status, 403)
  const made = await as(asDeveloper, 'POST', at, { vmid: 120, memory: '64', pool: 'dev' })
  assert.equal(made.status, 200, JSON.stringify(made.body))
  assert.equal(await ended(made.body.data), 'OK')
  assert.equal((await as(asDeveloper, 'GET', `${at}/120/config`)).status, 200)

  const gone = await as(asDeveloper, 'DELETE', `${at}/120`)
  assert.equal(await ended(gone.body.data), 'OK')
  const [pool] = (await node.api('GET', '/pools', { poolid: 'dev' })).data as [{ members: unknown[] }]
  assert.deepEqual(pool.members, [])
  // The next guest of this id is nobody's by right of the last.
  await makeGuest({ vmid: 120, name: 'another' })
  assert.equal((await as(asDeveloper, 'GET', `${at}/120/config`)).status, 403)
})

test('a pool is backed up as a whole, by who may back it up', async () => {
  const { api, settings, ended } = node
  const at = `/nodes/${settings.node}`
  await makeGuest({ vmid: 130, pool: 'dev', scsi0: 'local:0.01' })
  await api('PUT', '/access/acl', { path: '/storage/local', roles: 'PVEDatastoreUser', users: 'developer@pve' })
  const saved = await as(asDeveloper, 'POST', `${at}/vzdump`, { pool: 'dev', storage: 'local' })
  assert.equal(saved.status, 200, JSON.stringify(saved.body))
  assert.equal(await ended(saved.body.data), 'OK')
  const content = (await api('GET', `${at}/storage/local/content`, { content: 'backup' })).data as { vmid: number }[]
  assert.deepEqual(
    content.map(({ vmid }) => vmid),
    [130],
  )
  assert.equal((await as(asDeveloper, 'POST', `${at}/vzdump`, { all: 1, storage: 'local' })).status, 403)
  await assert.rejects(api('POST', `${at}/vzdump`, { pool: 'nothing' }), /pool 'nothing' does not exist/)
  assert.equal(await ended((await api('DELETE', `${at}/qemu/130`)).data), 'OK')
})

test('a deleted pool takes its permissions with it', async () => {
  const { api } = node
  await api('DELETE', '/pools/dev')
  const acl = (await api('GET', '/access/acl')).data as { path: string }[]
  assert.deepEqual(
    acl.filter(({ path }) => path === '/pool/dev'),
    [],
  )
})
