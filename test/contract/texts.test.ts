/**
 * Texts that clients search for in reason phrases, messages and errors, each in the situation it belongs to.
 * A guest without a disk is enough: its firmware waits for one.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'
import { type Ask, form, logIn, method, proofOf, publicPort } from './public-port.ts'

const at = '/nodes/testnode'
const closing = new AsyncDisposableStack()
let node: TestNode
/** Whoever may do everything but what is for root@pam alone. */
let ask: Ask

before(async () => {
  node = closing.use(await nodeUnderTest())
  const user = { userid: 'admin@pve', password: 'correct horse battery' }
  await node.api('POST', '/access/users', user)
  await node.api('PUT', '/access/acl', { path: '/', users: user.userid, roles: 'Administrator' })
  const base = `${node.url}/api2/json`
  ask = publicPort(base, proofOf(await logIn(base, user.userid, user.password)))
})
after(() => closing.disposeAsync())

type Said = [status: number, reason: string, errors?: Readonly<Record<string, string>>]

/** Status and reason of a call; the body must repeat the reason and have `data`. */
async function said(name: string, path: string, params: Readonly<Record<string, string>> = {}): Promise<Said> {
  const args = name === 'GET' || name === 'DELETE' ? [] : form(params)
  const query = name === 'DELETE' ? new URLSearchParams(params).toString() : ''
  const reply = await ask(`${path}${query === '' ? '' : `?${query}`}`, ...method(name), ...args)
  assert.equal(reply.json.data, null, `${name} ${path}`)
  assert.equal(String(reply.json.message).split('\n')[0], reply.reason)
  const errors = reply.json.errors as Record<string, string> | undefined
  return errors === undefined ? [reply.status, reply.reason] : [reply.status, reply.reason, errors]
}

/** How the task of a call ended. */
async function ended(name: string, path: string, params: Readonly<Record<string, string>> = {}): Promise<string> {
  const reply = await ask(path, ...method(name), ...form(params))
  assert.equal(reply.status, 200, reply.reason)
  return (await node.task(reply.data, /./)).exitstatus
}

/** A guest that was made for this test alone. */
async function guest(vmid: number, options: Readonly<Record<string, string>> = {}): Promise<string> {
  const wish = { vmid: String(vmid), memory: '32', ...options }
  assert.equal(await ended('POST', `${at}/qemu`, wish), 'OK')
  return `${at}/qemu/${vmid}`
}

describe('what is not there', () => {
  test('a guest', async () => {
    const text = "Configuration file 'nodes/testnode/qemu-server/999.conf' does not exist"
    for (const [name, path] of [
      ['GET', '/config'],
      ['PUT', '/config'],
      ['GET', '/pending'],
      ['GET', '/status/current'],
      ['POST', '/status/start'],
      ['POST', '/status/stop'],
      ['POST', '/agent/ping'],
      ['DELETE', ''],
    ] as const) {
      assert.deepEqual(
        await said(name, `${at}/qemu/999${path}`, name === 'PUT' ? { cores: '1' } : {}),
        [500, text],
        path,
      )
    }
  })

  test('a storage, a volume, a node', async () => {
    for (const path of [`/storage/none`, `${at}/storage/none/status`, `${at}/storage/none/content`]) {
      assert.deepEqual(await said('GET', path), [500, "storage 'none' does not exist"])
    }
    assert.deepEqual(await said('GET', `${at}/storage/local/content/iso/none.iso`), [
      500,
      "volume 'local:iso/none.iso' does not exist",
    ])
    assert.deepEqual(await said('GET', '/nodes/other/status'), [500, "node 'other' does not exist"])
  })

  test('a user, a token, a role, a group, a realm', async () => {
    const noUser = [500, "no such user ('none@pve')"]
    assert.deepEqual(await said('GET', '/access/users/none@pve'), noUser)
    assert.deepEqual(await said('PUT', '/access/users/none@pve', { comment: 'x' }), noUser)
    assert.deepEqual(await said('DELETE', '/access/users/none@pve'), noUser)
    assert.deepEqual(await said('GET', '/access/users/admin@pve/token/none'), [
      500,
      "no such token 'none' for user 'admin@pve'",
    ])
    assert.deepEqual(await said('GET', '/access/roles/None'), [500, "role 'None' does not exist"])
    assert.deepEqual(await said('PUT', '/access/acl', { path: '/', users: 'admin@pve', roles: 'None' }), [
      500,
      "role 'None' does not exist",
    ])
    assert.deepEqual(await said('GET', '/access/groups/none'), [500, "group 'none' does not exist"])
    const [status, , errors] = await said('POST', '/access/users', { userid: 'a@none' })
    assert.equal(status, 400)
    assert.match(errors?.userid ?? '', /realm 'none' does not exist/)
  })

  test('a task', async () => {
    const failed = 'Parameter verification failed.'
    const unknown = 'UPID:testnode:00000001:00000001:00000001:qmstart:1:root@pam:'
    for (const path of ['/status', '/log']) {
      assert.deepEqual(await said('GET', `${at}/tasks/${unknown}${path}`), [400, failed, { upid: 'no such task' }])
    }
    const [status, , errors] = await said('GET', `${at}/tasks/nonsense/status`)
    assert.equal(status, 400)
    assert.match(errors?.upid ?? '', /unable to parse worker upid/)
  })

  test('a snapshot', async () => {
    const path = await guest(110)
    const reply = await ask(`${path}/config?snapshot=before`)
    assert.deepEqual([reply.status, reply.reason], [500, "snapshot 'before' does not exist"])
  })
})

describe('what is there already', () => {
  test('a guest, also as the wish for a number', async () => {
    await guest(120)
    assert.deepEqual(await said('POST', `${at}/qemu`, { vmid: '120' }), [
      500,
      "VM 120 already exists on node 'testnode'",
    ])
    const taken = await ask('/cluster/nextid?vmid=120')
    assert.deepEqual([taken.status, taken.json.errors], [400, { vmid: 'VM 120 already exists' }])
    assert.equal((await ask('/cluster/nextid?vmid=121')).data, '121')
  })

  test('a user, a token, a role, a group, a storage, a volume', async () => {
    for (const [path, params, text] of [
      ['/access/users', { userid: 'twin@pve' }, "user 'twin@pve' already exists"],
      ['/access/users/admin@pve/token/twin', {}, 'already exists'],
      ['/access/roles', { roleid: 'Twin' }, "role 'Twin' already exists"],
      ['/access/groups', { groupid: 'twin' }, "group 'twin' already exists"],
      [
        '/storage',
        { storage: 'twin', type: 'dir', path: `${node.settings.stateDir}/twin` },
        "storage 'twin' already exists",
      ],
      [`${at}/storage/local/content`, { vmid: '100', filename: 'vm-100-twin.raw', size: '1M' }, 'already exists'],
    ] as const) {
      assert.equal((await ask(path, ...method('POST'), ...form(params))).status, 200, path)
      const [status, reason, errors] = await said('POST', path, params)
      assert.ok(status === 500 || status === 400, path)
      assert.ok(`${reason} ${JSON.stringify(errors)}`.includes(text), `${path}: ${reason}`)
    }
  })
})

describe('what does not fit the state of a guest', () => {
  test('a stopped one', async () => {
    const path = await guest(130, { agent: '1' })
    for (const verb of ['suspend', 'reset', 'reboot', 'shutdown']) {
      assert.equal(await ended('POST', `${path}/status/${verb}`), 'VM 130 not running', verb)
    }
    // Pulling the plug of what is off is no mistake.
    assert.equal(await ended('POST', `${path}/status/stop`), 'OK')
    assert.deepEqual(await said('POST', `${path}/agent/ping`), [500, 'VM 130 is not running'])
  })

  test('a running one, with an agent that does not answer or is not wanted', async () => {
    const path = await guest(131, { agent: '1' })
    assert.equal(await ended('POST', `${path}/status/start`), 'OK')
    assert.equal(await ended('POST', `${path}/status/start`), 'VM 131 already running')
    const started = performance.now()
    assert.deepEqual(await said('POST', `${path}/agent/ping`), [500, 'QEMU guest agent is not running'])
    assert.deepEqual(await said('GET', `${path}/agent/network-get-interfaces`), [
      500,
      'QEMU guest agent is not running',
    ])
    assert.ok(performance.now() - started < 10_000, 'clients give up after a few seconds')
    assert.match((await node.task((await ask(path, ...method('DELETE'))).data, /./)).exitstatus, /VM 131 is running/)
    assert.equal(await ended('POST', `${path}/status/stop`), 'OK')
    assert.equal((await ask(`${path}/config`, ...method('PUT'), ...form({ agent: '0' }))).status, 200)
    assert.equal(await ended('POST', `${path}/status/start`), 'OK')
    assert.deepEqual(await said('POST', `${path}/agent/ping`), [500, 'No QEMU guest agent configured'])
    assert.equal(await ended('POST', `${path}/status/stop`), 'OK')
  })

  test('a locked one', async () => {
    const path = await guest(132)
    await node.api('PUT', `${path}/config`, { lock: 'backup' })
    assert.deepEqual(await said('PUT', `${path}/config`, { cores: '2' }), [500, 'VM is locked (backup)'])
    assert.equal(await ended('POST', `${path}/status/start`), 'VM is locked (backup)')
    assert.deepEqual(await said('POST', `${path}/status/start`, { skiplock: '1' }), [
      400,
      'Parameter verification failed.',
      { skiplock: 'Only root may use this option.' },
    ])
  })
})

describe('changes of a configuration', () => {
  test('that another one has overtaken, or that change nothing', async () => {
    const path = await guest(140)
    const { digest } = (await ask(`${path}/config`)).data as { digest: string }
    assert.match(digest, /^[0-9a-f]{40}$/)
    assert.equal((await ask(`${path}/config`, ...method('PUT'), ...form({ cores: '2', digest }))).data, null)
    const late = 'detected modified configuration - file changed by other user? Try again.'
    assert.deepEqual(await said('PUT', `${path}/config`, { cores: '3', digest }), [500, late])
    assert.deepEqual(await said('PUT', `${path}/config`), [500, 'no options specified'])
    assert.deepEqual(await said('PUT', '/storage/local', { disable: '0', digest: '0'.repeat(40) }), [500, late])
  })

  test('that are for root@pam alone', async () => {
    const path = await guest(141)
    for (const [option, value] of [
      ['args', '-snapshot'],
      ['serial0', '/dev/ttyS0'],
    ] as const) {
      const [status, reason] = await said('PUT', `${path}/config`, { [option]: value })
      assert.equal(status, 500)
      assert.match(reason, new RegExp(`^only root can set '${option}' config`))
    }
  })
})
