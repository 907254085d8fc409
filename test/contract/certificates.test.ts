/** The certificate of a real node, as openssl and a connection that was there before see it. */
import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { Agent, get } from 'node:https'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { TLSSocket } from 'node:tls'
import { promisify } from 'node:util'
import { nodeFlags } from '#base/node-flags.ts'
import { systemClock, waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { Certificates } from '#cluster/certificates.ts'
import { openSqliteStore } from '#store/sqlite.ts'
import { testAuthority, type TestCertificate } from '../fixtures/test-authority.ts'
import { settingsToEnv } from '../../src/settings.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

let node: TestNode
let custom: string
const closing = new AsyncDisposableStack()
const authority = testAuthority()
let first: TestCertificate
let headers: Record<string, string>

before(async () => {
  node = closing.use(await nodeUnderTest())
  custom = `/nodes/${node.settings.node}/certificates/custom`
  first = authority.sign('node.example')
  const token = (await node.api('POST', '/access/users/root@pam/token/kept')) as { value: string }
  headers = { Authorization: `PVEAPIToken=root@pam!kept=${token.value}` }
})
after(async () => {
  authority[Symbol.dispose]()
  await closing.disposeAsync()
})

/** What openssl is shown, and whether it believes it. */
function shown(): Promise<{ fingerprint: string; isTrusted: boolean; length: number }> {
  const { apiPort } = node.settings
  const args = ['s_client', '-connect', `127.0.0.1:${apiPort}`, '-CAfile', authority.file, '-showcerts']
  return new Promise((resolve, reject) => {
    const child = execFile('openssl', args, { timeout: 10_000 }, (error, stdout, stderr) => {
      const chain = stdout.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? []
      if (chain[0] === undefined) reject(error ?? new Error(stderr))
      else {
        const { fingerprint256: fingerprint } = new X509Certificate(chain[0])
        resolve({ fingerprint, length: chain.length, isTrusted: stdout.includes('Verify return code: 0 (ok)') })
      }
    })
    child.stdin?.end()
  })
}

const fingerprintOf = (pem: string) => new X509Certificate(pem).fingerprint256
const info = async () =>
  (await node.api('GET', custom.replace('custom', 'info'))) as { filename: string; fingerprint: string; pem: string }[]

/** One call over a connection that is kept. */
function ask(agent: Agent): Promise<{ status: number; port: number; fingerprint: string }> {
  return new Promise((resolve, reject) => {
    const request = get(`${node.url}/api2/json/version`, { agent, headers, rejectUnauthorized: false }, (reply) => {
      const socket = reply.socket as TLSSocket
      const facts = { port: socket.localPort ?? 0, fingerprint: socket.getPeerCertificate().fingerprint256 }
      reply.resume().on('end', () => resolve({ status: reply.statusCode ?? 0, ...facts }))
    })
    request.on('error', reject)
  })
}

test('a certificate that is brought is served at once, and who was connected stays connected', async () => {
  const own = await shown()
  assert.equal(own.isTrusted, false)
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const before = await ask(agent)
  assert.deepEqual([before.status, before.fingerprint], [200, own.fingerprint])

  const certificates = first.certificate + authority.certificate
  const reply = (await node.api('POST', custom, { certificates, key: first.key })) as { fingerprint: string }
  assert.equal(reply.fingerprint, fingerprintOf(first.certificate))
  assert.deepEqual(await shown(), { fingerprint: reply.fingerprint, isTrusted: true, length: 2 })

  assert.deepEqual(await ask(agent), before)
  agent.destroy()
  assert.equal((await ask(new Agent())).fingerprint, reply.fingerprint)
  assert.deepEqual(
    (await info()).map(({ filename, fingerprint }) => [filename, fingerprint]),
    [
      ['pve-ssl.pem', own.fingerprint],
      ['pveproxy-ssl.pem', reply.fingerprint],
    ],
  )
  assert.doesNotMatch(JSON.stringify(await info()), /PRIVATE/)
})

test('what cannot be served is refused, and what is served stays', async () => {
  const other = authority.sign('other.example')
  const expected = await shown()
  const wrongKey = (error: unknown) => isFault(error) && /not the one of the first/.test(error.fields?.key ?? '')
  const bring = (params: Record<string, string>) => node.api('POST', custom, { force: '1', ...params })
  await assert.rejects(bring({ certificates: other.certificate, key: first.key }), wrongKey)
  await assert.rejects(bring({ certificates: other.certificate }), wrongKey)
  const unforced = node.api('POST', custom, { certificates: other.certificate, key: other.key })
  await assert.rejects(unforced, /is there already/)
  assert.deepEqual(await shown(), expected)
})

test('it outlives the front and the daemon', async () => {
  const expected = await shown()
  process.kill(pidOfFront(), 'SIGKILL')
  await waitFor(
    () =>
      shown().then(
        (now) => now.fingerprint === expected.fingerprint,
        () => false,
      ),
    {
      what: 'the front to come back',
      timeoutMs: 60_000,
    },
  )
  await node.kill9()
  await node.restart()
  assert.deepEqual(await shown(), expected)
})

/** Whoever listens on the port of the node. */
function pidOfFront(): number {
  const listening = execFileSync('ss', ['-Hltnp', `sport = :${node.settings.apiPort}`]).toString()
  return Number(/pid=(\d+),/.exec(listening)?.[1])
}

test('one that another process of the node brings is taken up', async () => {
  const renewed = authority.sign('renewed.example')
  await using store = await openSqliteStore(`${node.settings.stateDir}/store.sqlite`, { isChecked: false })
  const needs = { settings: node.settings, store, clock: systemClock, random: systemRandom }
  await new Certificates(needs).bring({ certificates: renewed.certificate, key: renewed.key, force: true })
  const expected = fingerprintOf(renewed.certificate)
  await waitFor(async () => (await shown()).fingerprint === expected, { what: 'the certificate', timeoutMs: 60_000 })
})

test('the command line reads both from files, so that no key is in its arguments', async () => {
  const { certificate } = authority.sign('cli.example')
  const { directory } = authority
  const program = [...nodeFlags, join(import.meta.dirname, '../../src/cli/main.ts')]
  const set = [
    'node',
    'certificate',
    'set',
    '--certificates',
    `${directory}/leaf.pem`,
    '--key',
    `${directory}/leaf.key`,
  ]
  const env = { ...settingsToEnv(node.settings), PATH: process.env.PATH }
  const { stdout } = await promisify(execFile)(process.execPath, [...program, ...set, '--force', '-o', 'json'], { env })
  assert.equal((JSON.parse(stdout) as { fingerprint: string }).fingerprint, fingerprintOf(certificate))
  assert.equal((await shown()).fingerprint, fingerprintOf(certificate))
})

test('without it the own certificate is served again', async () => {
  await node.api('DELETE', custom)
  const [own, ...others] = await info()
  assert.deepEqual(others, [])
  assert.equal((await shown()).fingerprint, own?.fingerprint)
  await node.api('DELETE', custom)
})
