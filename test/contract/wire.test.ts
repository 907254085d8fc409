/** What goes over the public port of a real node, byte by byte, as the clients in the field send and read it. */
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { Agent, request } from 'node:https'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'
import {
  type Ask,
  cookieOf,
  form,
  jsonBody,
  logIn,
  method,
  proofOf,
  publicPort,
  type PublicReply,
  type Session,
  tokenProof,
} from './public-port.ts'

const user = { name: 'admin@pve', password: 'correct horse battery' }
const at = '/nodes/testnode'
const closing = new AsyncDisposableStack()
let node: TestNode
let base: string
let session: Session
/** Nobody. */
let asNobody: Ask
/** An administrator who is not root@pam, with ticket and CSRF token. */
let ask: Ask

before(async () => {
  node = closing.use(await nodeUnderTest())
  base = `${node.url}/api2/json`
  await node.api('POST', '/access/users', { userid: user.name, password: user.password })
  await node.api('PUT', '/access/acl', { path: '/', users: user.name, roles: 'Administrator' })
  session = await logIn(base, user.name, user.password)
  asNobody = publicPort(base)
  ask = publicPort(base, proofOf(session))
})
after(() => closing.disposeAsync())

const outcome = ({ status, reason }: PublicReply): [number, string] => [status, reason]
const errorsOf = ({ json }: PublicReply): unknown => json.errors
const csrfHeader = (text: string): string[] => ['-H', `CSRFPreventionToken: ${text}`]

describe('proof of who calls', () => {
  test('a ticket is taken from the cookie, raw or escaped, among other attributes, or from Authorization', async () => {
    const { ticket } = session
    const escaped = encodeURIComponent(ticket)
    for (const proof of [
      cookieOf(session),
      ['-H', `Cookie: PVEAuthCookie=${escaped}`],
      ['-H', `Cookie: PVEAuthCookie=${escaped}; version=0; path=/; domain=here; port=`],
      ['-H', `Cookie: lang=de; PVEAuthCookie=${ticket}`],
      ['-H', `Authorization: PVEAuthCookie=${ticket}`],
    ]) {
      assert.equal((await asNobody('/version', ...proof)).status, 200, proof.join(' '))
    }
  })

  test('what is no proof is 401 in the words clients know, after three seconds, with a JSON body', async () => {
    const started = performance.now()
    const wrongToken = '00000000-0000-4000-8000-000000000000'
    const refusals = await Promise.all([
      asNobody('/version'),
      asNobody('/no/such/path'),
      asNobody('/version', '-b', `PVEAuthCookie=${session.ticket.replace('admin', 'other')}`),
      asNobody('/version', ...tokenProof('admin@pve!none', wrongToken)),
      asNobody('/access/ticket', ...form({ username: user.name, password: 'wrong password' })),
      asNobody('/access/ticket', ...form({ username: 'nobody@pve', password: 'wrong password' })),
      asNobody('/access/groups', ...cookieOf(session), ...form({ groupid: 'x' })),
      asNobody('/access/groups', ...cookieOf(session), ...csrfHeader('65000000:AAAA'), ...form({ groupid: 'x' })),
    ])
    assert.ok(performance.now() - started >= 2_900)
    assert.deepEqual(refusals.map(outcome), [
      [401, 'No ticket'],
      [401, 'No ticket'],
      [401, 'permission denied - invalid PVE ticket'],
      [401, 'invalid token value!'],
      [401, 'authentication failure'],
      [401, 'authentication failure'],
      [401, 'Permission denied - invalid csrf token'],
      [401, 'Permission denied - invalid csrf token'],
    ])
    for (const { json } of refusals) assert.equal(json.data, null)
    assert.deepEqual(await node.api('GET', '/access/groups'), [])
  })

  test('a login tells what the web interface asks for, and a ticket is as good as the password', async () => {
    const renewed = await asNobody('/access/ticket', ...form({ username: user.name, password: session.ticket }))
    const data = renewed.data as Session & { username: string; CSRFPreventionToken: string; cap: unknown }
    assert.equal(data.username, user.name)
    assert.match(data.ticket, /^PVE:admin@pve:[0-9A-F]{8}::[A-Za-z0-9+/]+=*$/)
    assert.match(data.CSRFPreventionToken, /^[0-9A-F]{8}:[A-Za-z0-9+/]+=*$/)
    const cap = data.cap as Record<string, Record<string, unknown>>
    assert.deepEqual(Object.keys(cap).toSorted(), ['access', 'dc', 'mapping', 'nodes', 'sdn', 'storage', 'vms'])
    assert.equal(cap.vms?.['VM.Allocate'], 1)
    const split = await asNobody(
      '/access/ticket',
      ...form({ username: 'admin', realm: 'pve', password: user.password }),
    )
    assert.equal(split.status, 200)
    const proven = { username: user.name, password: user.password, path: '/vms/100', privs: 'VM.Audit' }
    assert.deepEqual((await asNobody('/access/ticket', ...form(proven))).data, { username: user.name })
  })

  test('a token has its own rights within those of its user, and none at first', async () => {
    const made = await ask('/access/users/admin%40pve/token/own', ...method('POST'))
    const { value, 'full-tokenid': id } = made.data as { value: string; 'full-tokenid': string }
    assert.equal(id, 'admin@pve!own')
    assert.match(value, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
    const asToken = publicPort(base, tokenProof(id, value))
    assert.deepEqual(outcome(await asToken(`${at}/status`)), [
      403,
      'Permission check failed (/nodes/testnode, Sys.Audit)',
    ])
    assert.deepEqual((await asToken('/storage')).data, [])
    await node.api('PUT', '/access/acl', { path: '/nodes', tokens: id, roles: 'PVEAuditor' })
    assert.equal((await asToken(`${at}/status`)).status, 200)
    // No CSRF token is asked of it; what only a person may do is not for it.
    assert.equal((await asToken('/access/groups', ...form({ groupid: 'x' }))).status, 403)
    const password = form({ userid: user.name, password: 'another password' })
    assert.match((await asToken('/access/password', ...method('PUT'), ...password)).reason, /API token/)
    const spaced = ['-H', `Authorization: PVEAPIToken ${id}=${value}`]
    assert.equal((await asNobody('/version', ...spaced)).status, 200)

    await node.api('PUT', '/access/acl', { path: '/', users: user.name, roles: 'Administrator', delete: '1' })
    assert.equal((await asToken(`${at}/status`)).status, 403)
    await node.api('PUT', '/access/acl', { path: '/', users: user.name, roles: 'Administrator' })
    const full = await ask('/access/users/admin@pve/token/full', ...form({ privsep: '0' }))
    const { value: secret } = full.data as { value: string }
    assert.equal((await asNobody(`${at}/status`, ...tokenProof('admin@pve!full', secret))).status, 200)
  })

  test('before the login there are the realms and the login itself', async () => {
    const realms = (await asNobody('/access/domains')).data as { realm: string }[]
    assert.deepEqual(
      realms.map(({ realm }) => realm),
      ['pam', 'pve'],
    )
    assert.equal((await asNobody('/access/ticket')).status, 200)
  })
})

describe('paths', () => {
  test('doubled, trailing and escaped slashes lead to the same place', async () => {
    for (const path of [
      `/${at}/qemu`,
      `${at}//qemu`,
      `${at}/qemu/`,
      '/nodes%2Ftestnode/qemu',
      '/%6Eodes/testnode/qemu',
    ]) {
      const reply = await ask(path)
      assert.deepEqual([reply.status, reply.data], [200, []], path)
    }
    assert.equal((await ask(`${at}/qemu/?_dc=1234567890`)).status, 200)
    assert.equal((await ask('/nodes/localhost/version')).status, 200)
  })

  test('a parameter of the path may be repeated, but not contradicted', async () => {
    assert.equal((await ask(`${at}/qemu?node=testnode`)).status, 200)
    const other = await ask(`${at}/qemu?node=other`)
    assert.equal(other.status, 400)
    assert.deepEqual(Object.keys(errorsOf(other) as object), ['node'])
  })

  test('what is not there is 501, also methods nobody has', async () => {
    assert.deepEqual(outcome(await ask('/no/such/path')), [501, "Method 'GET /no/such/path' not implemented"])
    assert.deepEqual(outcome(await ask('/version', ...method('POST'))), [501, "Method 'POST /version' not implemented"])
    assert.deepEqual(outcome(await ask('/version', ...method('PATCH'))), [
      501,
      "Method 'PATCH /version' not implemented",
    ])
    assert.equal((await ask('/version', '-I')).status, 501)
    assert.equal((await publicPort(`${node.url}/api2/yaml`, proofOf(session))('/version')).status, 501)
    assert.equal((await ask('/version', ...method('GET'), '-d', 'a=b')).status, 501)
  })
})

describe('parameters', () => {
  const readUser = (name: string) => node.api('GET', `/access/users/${name}`) as Promise<Record<string, unknown>>

  test('a form is read with its content type, without one, and escaped halfway', async () => {
    const text = '2 + 2 = 4; ä€😀 %'
    assert.equal((await ask('/access/users', ...form({ userid: 'a1@pve', comment: text }))).status, 200)
    assert.equal((await readUser('a1@pve')).comment, text)
    const bare = ['-H', 'Content-Type:', '-d', 'userid=a2@pve;comment=a+b%20c 100%&email=a@example.org']
    assert.equal((await ask('/access/users', ...bare)).status, 200)
    assert.deepEqual(await readUser('a2@pve'), {
      enable: 1,
      expire: 0,
      groups: [],
      comment: 'a b c 100%',
      email: 'a@example.org',
    })
  })

  test('JSON is read with native types, null as absent, and the query wins over the body', async () => {
    const body = { userid: 'a3@pve', enable: false, expire: 0, comment: 'body', email: null, firstname: 'A' }
    assert.equal((await ask('/access/users?comment=query', ...jsonBody(body))).status, 200)
    const { enable, comment, email, firstname } = await readUser('a3@pve')
    assert.deepEqual(
      { enable, comment, email, firstname },
      { enable: 0, comment: 'query', email: undefined, firstname: 'A' },
    )
  })

  test('booleans are 1 and 0, in JSON also true and false, in text nothing else', async () => {
    const set = (...args: string[]) => ask('/access/users/a3@pve', ...method('PUT'), ...args)
    for (const [args, expected] of [
      [form({ enable: '1' }), 1],
      [form({ enable: '0' }), 0],
      [jsonBody({ enable: true }), 1],
      [jsonBody({ enable: 0 }), 0],
      [jsonBody({ enable: 1 }), 1],
      [jsonBody({ enable: '0' }), 0],
    ] as const) {
      assert.equal((await set(...args)).status, 200, args.join(' '))
      assert.equal((await readUser('a3@pve')).enable, expected, args.join(' '))
    }
    for (const word of ['true', 'on', 'yes', '2', '']) {
      const reply = await set(...form({ enable: word }))
      const text = `type check ('boolean') failed - got '${word}'`
      assert.deepEqual([reply.status, errorsOf(reply)], [400, { enable: text }], word)
    }
  })

  test('inside a property string booleans are words as well', async () => {
    const vmid = '130'
    const wish = { vmid, agent: 'enabled=Yes,fstrim_cloned_disks=off', memory: '32', ostype: 'l26' }
    const made = await ask(`${at}/qemu`, ...form(wish))
    await node.task(made.data)
    const config = (await ask(`${at}/qemu/${vmid}/config`)).data as Record<string, unknown>
    assert.match(String(config.agent), /^enabled=/)
    // Text stays text, also where it looks like a number.
    assert.deepEqual([config.memory, config.ostype], ['32', 'l26'])
    await node.task((await ask(`${at}/qemu/${vmid}`, ...method('DELETE'))).data)
  })

  test('every wrong parameter is named at once, with its rule', async () => {
    const wrong = { vmid: '99', cores: 'x', memory: '', name: 'a b', bogus: '1', ostype: 'beos', sockets: '0' }
    const reply = await ask(`${at}/qemu`, ...form(wrong))
    assert.deepEqual(outcome(reply), [400, 'Parameter verification failed.'])
    assert.equal(reply.json.message, 'Parameter verification failed.\n')
    const errors = errorsOf(reply) as Record<string, string>
    assert.deepEqual(Object.keys(errors).toSorted(), Object.keys(wrong).toSorted())
    assert.equal(errors.vmid, 'value must have a minimum value of 100')
    assert.equal(errors.cores, "type check ('integer') failed - got 'x'")
    assert.equal(errors.bogus, 'property is not defined in schema and the schema does not allow additional properties')
    assert.match(errors.ostype ?? '', /^value 'beos' does not have a value in the enumeration 'other, /)
    const nothing = await ask(`${at}/qemu`, ...method('POST'))
    assert.deepEqual(errorsOf(nothing), { vmid: 'property is missing and it is not optional' })
  })

  test('other bodies are refused for what they are', async () => {
    assert.equal((await ask('/access/groups', '-H', 'Content-Type: text/xml', '-d', '<a/>')).status, 506)
    assert.equal((await ask('/access/groups', '-H', 'Content-Type: application/json', '-d', '{"a"')).status, 400)
    assert.equal((await ask('/access/groups', '-H', 'Content-Type: application/json', '-d', '[1]')).status, 400)
    assert.equal((await ask('/access/groups', '-d', 'groupid=%ff')).status, 400)
    assert.equal((await ask('/access/groups', '-d', `comment=${'x'.repeat(100_000)}`)).status, 400)
  })
})

describe('replies', () => {
  test('have exactly the headers and the envelope clients compare', async () => {
    const { status, reason, headers, json } = await ask('/version')
    assert.deepEqual([status, reason, Object.keys(json)], [200, 'OK', ['data']])
    assert.equal(headers['content-type'], 'application/json;charset=UTF-8')
    assert.equal(headers.server, 'pve-api-daemon/3.0')
    assert.equal(headers['cache-control'], 'max-age=0')
    assert.equal(headers.pragma, 'no-cache')
    assert.equal(headers.expires, headers.date)
    const refused = await ask('/access/users/nobody@pve')
    assert.equal(refused.headers['content-type'], 'application/json;charset=UTF-8')
    assert.equal(refused.headers.connection, 'close')
  })

  test('nextid is text, booleans are numbers, whole numbers have no fraction', async () => {
    assert.equal((await ask('/cluster/nextid')).body, '{"data":"100"}')
    const [local] = (await ask(`${at}/storage`)).data as Record<string, unknown>[]
    assert.deepEqual([local?.active, local?.enabled, local?.shared], [1, 1, 0])
    for (const key of ['total', 'used', 'avail']) assert.ok(Number.isInteger(local?.[key]), key)
    const status = (await ask(`${at}/status`)).data as { loadavg: unknown[]; uptime: unknown }
    assert.deepEqual(
      status.loadavg.map((one) => typeof one),
      ['string', 'string', 'string'],
    )
    assert.ok(Number.isInteger(status.uptime))
    const nodes = (await ask('/cluster/status')).data as Record<string, unknown>[]
    const { ip: _, ...facts } = nodes[0] ?? {}
    const expected = { id: 'node/testnode', type: 'node', name: 'testnode', level: '', local: 1, nodeid: 0, online: 1 }
    assert.deepEqual([nodes.length, facts], [1, expected])
  })

  test('in extjs the status is inside', async () => {
    const asExt = publicPort(`${node.url}/api2/extjs`, proofOf(session))
    const good = await asExt('/cluster/nextid')
    assert.deepEqual([good.status, good.json], [200, { data: '100', success: 1 }])
    const gone = await asExt(`${at}/qemu/999/config`)
    assert.equal(gone.status, 200)
    assert.equal(gone.json.success, 0)
    assert.equal(gone.json.status, 500)
    assert.equal(gone.json.message, "Configuration file 'nodes/testnode/qemu-server/999.conf' does not exist\n")
    const wrong = await asExt('/cluster/nextid?vmid=1')
    assert.deepEqual(
      [wrong.status, wrong.json.success, wrong.json.status, wrong.json.errors],
      [200, 0, 400, { vmid: 'value must have a minimum value of 100' }],
    )
  })

  test('a plain HTTP request is sent to the same place by https', async () => {
    const plain = publicPort(base.replace('https:', 'http:'))
    for (const [args, status] of [
      [[], 301],
      [method('POST'), 308],
    ] as const) {
      const reply = await plain('/version?a=b', ...args)
      assert.deepEqual([reply.status, reply.headers.location], [status, `${base}/version?a=b`])
    }
  })

  test('Node’s own client trusts the certificate of the node and keeps its connection', async () => {
    const ca = await readFile(join(node.settings.stateDir, 'keys', 'tls.pem'), 'utf8')
    using agent = closable(new Agent({ ca, keepAlive: true, maxSockets: 1 }))
    const first = await askByNode(agent.agent)
    const second = await askByNode(agent.agent)
    assert.match(first.text, /^\{"data":\{"version":"\d+\.\d+\.\d+"/)
    assert.deepEqual([second.status, second.text, second.port], [200, first.text, first.port])
  })
})

function closable(agent: Agent): Disposable & { readonly agent: Agent } {
  return { agent, [Symbol.dispose]: () => agent.destroy() }
}

function askByNode(agent: Agent): Promise<{ status: number | undefined; text: string; port: number | undefined }> {
  return new Promise((resolve, reject) => {
    const headers = { Cookie: `PVEAuthCookie=${session.ticket}` }
    const call = request(`${base}/version`, { agent, headers }, (reply) => {
      const port = call.socket?.localPort
      let text = ''
      reply.setEncoding('utf8').on('data', (part: string) => (text += part))
      reply.on('end', () => resolve({ status: reply.statusCode, text, port }))
    })
    call.on('error', reject)
    call.end()
  })
}
