/** What the front gives again is never behind: a change made anywhere is in the very next reply. */
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { Agent, request } from 'node:https'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { accessLogName } from '#http/access-log.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

let node: TestNode
let secret: string
const closing = new AsyncDisposableStack()
const agent = closing.adopt(new Agent({ keepAlive: true, rejectUnauthorized: false }), (one) => one.destroy())

before(async () => {
  node = closing.use(await nodeUnderTest())
  await node.api('POST', '/access/users', { userid: 'ann@pve' })
  await newToken()
})
after(() => closing.disposeAsync())

async function newToken(): Promise<void> {
  const made = await node.api('POST', '/access/users/ann@pve/token/ci', { privsep: '0' })
  secret = (made as { value: string }).value
}

function asAnn(path: string): Promise<{ status: number; data: unknown }> {
  const headers = { Authorization: `PVEAPIToken=ann@pve!ci=${secret}` }
  return new Promise((resolve, reject) => {
    const asked = request(`${node.url}/api2/json${path}`, { agent, headers }, (reply) => {
      const parts: Buffer[] = []
      reply.on('data', (part: Buffer) => parts.push(part))
      reply.on('end', () => {
        const { data } = JSON.parse(Buffer.concat(parts).toString()) as { data: unknown }
        resolve({ status: reply.statusCode ?? 0, data })
      })
    })
    asked.on('error', reject).end()
  })
}

const guests = async () =>
  ((await asAnn('/cluster/resources?type=vm')).data as { vmid: number; name: string }[]).map(({ name }) => name)

test('rights, given and taken away', async () => {
  await node.task(await node.api('POST', `/nodes/${node.settings.node}/qemu`, { vmid: '100', name: 'one' }))
  const acl = { path: '/vms/100', users: 'ann@pve', roles: 'PVEAuditor' }
  const user = () => asAnn(`/nodes/${node.settings.node}/qemu/100/config`)
  for (let round = 0; round < 20; round += 1) {
    await node.api('PUT', '/access/acl', acl)
    assert.deepEqual(await guests(), ['one'], `round ${round}`)
    assert.equal((await user()).status, 200)
    assert.equal((await user()).status, 200)
    await node.api('PUT', '/access/acl', { ...acl, delete: '1' })
    assert.deepEqual(await guests(), [], `round ${round}`)
    assert.equal((await user()).status, 403)
  }
})

test('what the process of a task has written', async () => {
  await node.api('PUT', '/access/acl', { path: '/vms', users: 'ann@pve', roles: 'PVEAuditor' })
  for (let round = 0; round < 3; round += 1) {
    assert.deepEqual(await guests(), ['one'])
    await node.task(await node.api('POST', `/nodes/${node.settings.node}/qemu`, { vmid: '101', name: 'two' }))
    assert.deepEqual(await guests(), ['one', 'two'])
    await node.task(await node.api('DELETE', `/nodes/${node.settings.node}/qemu/101`))
  }
})

test('a token and a user that are no more', async () => {
  assert.equal((await asAnn('/version')).status, 200)
  await node.api('PUT', '/access/users/ann@pve', { enable: '0' })
  assert.equal((await asAnn('/version')).status, 401)
  await node.api('PUT', '/access/users/ann@pve', { enable: '1' })
  assert.equal((await asAnn('/version')).status, 200)
  await node.api('DELETE', '/access/users/ann@pve/token/ci')
  assert.equal((await asAnn('/version')).status, 401)
})

test('every answer is in the access log, also those given again', async () => {
  await newToken()
  const path = '/access/users/ann@pve'
  await node.api('PUT', '/access/acl', { path: '/access', users: 'ann@pve', roles: 'PVEAuditor' })
  for (let at = 0; at < 25; at += 1) await asAnn(path)
  const answers = async () => {
    const lines = (await readFile(join(node.settings.stateDir, accessLogName), 'utf8')).trim().split('\n')
    const calls = lines.map(
      (line) => JSON.parse(line) as { path: string; method: string; times?: number; user?: string },
    )
    const ours = calls.filter((call) => call.method === 'GET' && call.path === path && call.user === 'ann@pve!ci')
    return ours.reduce((sum, { times = 1 }) => sum + times, 0)
  }
  await waitFor(async () => (await answers()) === 25, { what: '25 answers in the access log', timeoutMs: 10_000 })
})
