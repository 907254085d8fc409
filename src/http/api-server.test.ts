/** The daemon's sockets: who may connect, and who he then is. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { peerCredentials } from '#host/native.ts'
import { curl } from '../../test/contract/curl.ts'
import { csrfOf, demoNode, ticketOf } from '../../test/contract/demo.ts'
import { localUsers } from './peer.ts'
import { closeServer, listenOnSocket } from './unix-socket.ts'

const whoami = 'http://local/api2/json/whoami'
const authId = (body: string) => (JSON.parse(body) as { data: { authid: string } | null }).data?.authid

describe('the local socket', () => {
  test('root is root@pam by the word of the kernel, and needs no CSRF token', async () => {
    await using node = await demoNode({ changes: { peerCredentials } })
    const got = await curl(['--unix-socket', node.apiSocket, whoami])
    assert.deepEqual([got.status, authId(got.body)], [200, process.getuid?.() === 0 ? 'root@pam' : undefined])
    const change = await curl([
      '--unix-socket',
      node.apiSocket,
      '-X',
      'PUT',
      '-d',
      'text=x',
      'http://local/api2/json/echo/a',
    ])
    assert.equal(change.status, 200)
    assert.equal((await stat(node.apiSocket)).mode & 0o777, 0o666)
  })

  test('root may act as somebody else by ticket or token', async () => {
    await using node = await demoNode()
    const asToken = ['-H', 'Authorization: PVEAPIToken=root@pam!ci=letmein']
    assert.equal(authId((await curl(['--unix-socket', node.apiSocket, ...asToken, whoami])).body), 'root@pam!ci')
    const asAnn = ['-b', `PVEAuthCookie=${ticketOf('ann@pve')}`, '-H', `CSRFPreventionToken: ${csrfOf('ann@pve')}`]
    assert.equal(authId((await curl(['--unix-socket', node.apiSocket, ...asAnn, whoami])).body), 'ann@pve')
  })

  test('a task of root is whoever started it, and one that does not run is nobody, not root', async () => {
    await using node = await demoNode({ uid: 0 })
    const as = (upid: string) => curl(['--unix-socket', node.apiSocket, '-H', `X-Hakobune-Task: ${upid}`, whoami])
    assert.equal(authId((await as('UPID:of-ann')).body), 'ann@pve')
    assert.equal((await as('UPID:gone')).status, 401)
  })

  test('nobody but root speaks for a task, and nobody at all from outside', async () => {
    await using node = await demoNode({ uid: 4242 })
    const claim = ['-H', 'X-Hakobune-Task: UPID:of-ann']
    assert.equal((await curl(['--unix-socket', node.apiSocket, ...claim, whoami])).status, 401)
    assert.equal((await curl(['--unix-socket', node.frontSocket, ...claim, whoami])).status, 401)
  })

  test('a stranger of this machine is nobody', async () => {
    await using node = await demoNode({ uid: 4242 })
    const got = await curl(['--unix-socket', node.apiSocket, whoami])
    assert.deepEqual([got.status, got.reason], [401, 'No ticket'])
  })

  test('the front alone is believed about the address of the client', async () => {
    await using node = await demoNode()
    const got = await curl(['--unix-socket', node.apiSocket, '-H', 'X-Hakobune-Client: 192.0.2.66', whoami])
    assert.equal((JSON.parse(got.body) as { data: { remote: string } }).data.remote, '')
  })

  test('when the kernel cannot say who connected, nobody is let in', async () => {
    const unknown = () => {
      throw new Error('no credentials')
    }
    await using node = await demoNode({ changes: { peerCredentials: unknown } })
    assert.equal((await curl(['--unix-socket', node.apiSocket, whoami])).status, 0)
  })
})

test('only the front may connect to its socket, not even root', async () => {
  await using node = await demoNode({ uid: 999_999, changes: { peerCredentials } })
  const socket = connect(node.frontSocket)
  socket.write('GET /api2/json/access/domains HTTP/1.1\r\nHost: x\r\n\r\n')
  let got = 0
  socket.on('data', (part) => (got += part.length))
  socket.on('error', () => {}) // A reset says the same as an end.
  await new Promise((resolve) => socket.once('close', resolve))
  assert.equal(got, 0)
  assert.match(node.log.lines.join('\n'), /refused a connection to the front socket/)
})

test('a uid is a user when it has a name here and that name is a user of pam', async () => {
  await using undo = new AsyncDisposableStack()
  const directory = await mkdtemp(join(tmpdir(), 'hako-passwd-'))
  undo.defer(() => rm(directory, { recursive: true, force: true }))
  const passwd = join(directory, 'passwd')
  await writeFile(passwd, 'root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1001:1001::/:/bin/sh\n')
  const users = localUsers(async (user) => user === 'ann@pam', passwd)
  assert.deepEqual(await users(0), { user: 'root@pam', authId: 'root@pam' })
  assert.deepEqual(await users(1000), { user: 'ann@pam', authId: 'ann@pam' })
  assert.equal(await users(1001), undefined)
  assert.equal(await users(4242), undefined)
})

describe('a place in the file system', () => {
  test('a leftover is replaced, a socket somebody answers on is not', async () => {
    await using undo = new AsyncDisposableStack()
    const directory = await mkdtemp(join(tmpdir(), 'hako-socket-'))
    undo.defer(() => rm(directory, { recursive: true, force: true }))
    const path = join(directory, 'a.sock')
    await writeFile(path, 'left over')
    const first = createServer()
    await listenOnSocket(first, { path, mode: 0o600 })
    undo.defer(() => closeServer(first))
    assert.equal((await stat(path)).mode & 0o777, 0o600)
    await assert.rejects(
      listenOnSocket(createServer(), { path, mode: 0o600 }),
      (error) => isFault(error, 'conflict') && error.remedy !== undefined,
    )
  })

  test('closing waits for nobody for ever', async () => {
    await using undo = new AsyncDisposableStack()
    const directory = await mkdtemp(join(tmpdir(), 'hako-socket-'))
    undo.defer(() => rm(directory, { recursive: true, force: true }))
    const server = createServer(() => {}) // Never answers.
    await listenOnSocket(server, { path: join(directory, 'a.sock'), mode: 0o600 })
    const client = connect(join(directory, 'a.sock'))
    client.on('error', () => {})
    client.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
    await once(server, 'request')
    await closeServer(server, 50)
    assert.equal(server.listening, false)
  })
})
