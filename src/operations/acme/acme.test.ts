/** Certificates from a real ACME server: names are proven to it by a file and by its name server, and it is asked what it knows. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { systemRandom } from '#base/random.ts'
import { AcmeAccounts } from '#cluster/acme/accounts.ts'
import { AcmePlugins } from '#cluster/acme/plugins.ts'
import { Certificates } from '#cluster/certificates.ts'
import { NodeConfigs } from '#cluster/node-config.ts'
import { machine } from '#host/exec.ts'
import { openMemoryStore } from '#store/memory.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import { type WholeNode, wholeNode } from '../../../test/contract/whole-node.ts'
import { type AcmeServer, acmeServer, secretOf } from '../../../test/fixtures/acme-server.ts'
import { testAuthority } from '../../../test/fixtures/test-authority.ts'
import { settingsFrom } from '../../settings.ts'
import { deactivateAccount, registerAccount, updateAccount } from './account.ts'
import {
  type CertificateDeps,
  isRenewalDue,
  orderCertificate,
  renewCertificate,
  revokeCertificate,
} from './certificate.ts'

const closing = new AsyncDisposableStack()
let acme: AcmeServer
let node: WholeNode
let at: string

before(async () => {
  acme = closing.use(await acmeServer())
  node = closing.use(await wholeNode({ caFile: acme.caFile, acmePort: acme.acmePort }))
  at = `/nodes/${node.settings.node}/certificates`
})
after(() => closing.disposeAsync())

const ended = async (method: 'POST' | 'PUT' | 'DELETE', path: string, params?: Record<string, unknown>) =>
  node.ended((await node.api(method, path, params)).data)
const info = async () =>
  (await node.api('GET', `${at}/info`)).data as {
    filename: string
    fingerprint: string
    pem: string
    san: string[]
    issuer: string
  }[]
const custom = async () => (await info()).find(({ filename }) => filename === 'pveproxy-ssl.pem')

test('what a server says of itself is told, and only known servers are asked for strangers', async () => {
  const { data } = await node.api('GET', '/cluster/acme/tos', { directory: acme.directory })
  assert.match(String(data), /^data:text\/plain,Do/)
  const meta = (await node.api('GET', '/cluster/acme/meta', { directory: acme.directory })).data
  assert.deepEqual(meta, { termsOfService: data, externalAccountRequired: 0 })
  const nowhere = node.api('GET', '/cluster/acme/tos', { directory: 'https://127.0.0.1:9/dir' })
  await assert.rejects(nowhere, /the ACME server 'https:\/\/127.0.0.1:9\/dir' does not answer: .*ECONNREFUSED/)
})

test('an account is registered, its key is for root alone, and a server that is not there leaves nothing', async () => {
  const contact = 'admin@acme.test,second@acme.test'
  const nowhere = { name: 'other', contact, directory: 'https://127.0.0.1:9/dir' }
  assert.match(
    await ended('POST', '/cluster/acme/account', nowhere),
    /the ACME server '.*' does not answer: .*ECONNREFUSED/,
  )
  assert.deepEqual((await node.api('GET', '/cluster/acme/account')).data, [])
  assert.deepEqual(await readdir(join(node.settings.stateDir, 'keys/acme')), [])
  const wish = { contact, directory: acme.directory, tos_url: 'data:text/plain,Do what thou wilt' }
  const { tos_url: _, ...silent } = wish
  assert.match(await ended('POST', '/cluster/acme/account', silent), /says: .*did not agree to the terms/)
  assert.equal(await ended('POST', '/cluster/acme/account', wish), 'OK')
  assert.match(await ended('POST', '/cluster/acme/account', wish), /'default' already exists/)
  const { account, directory, location } = (await node.api('GET', '/cluster/acme/account/default')).data as Record<
    string,
    unknown
  >
  assert.deepEqual(account, { contact: ['mailto:admin@acme.test', 'mailto:second@acme.test'], status: 'valid' })
  assert.equal(directory, acme.directory)
  assert.match(String(location), /\/my-account\/\d+$|\/my-account\/[0-9a-f]+$/)
  const key = join(node.settings.stateDir, 'keys/acme/default.key')
  assert.equal((await stat(key)).mode & 0o777, 0o600)
  const tasks = join(node.settings.stateDir, 'tasks')
  // What tasks wrote down is read by more people than root.
  const secret = await secretOf(key)
  const said = (await readdir(tasks, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile())
  assert.ok(said.length > 0 && secret.length > 20)
  for (const { parentPath, name } of said) assert.ok(!(await readFile(join(parentPath, name), 'utf8')).includes(secret))
  assert.equal(await ended('PUT', '/cluster/acme/account/default', { contact: 'third@acme.test' }), 'OK')
  await assert.rejects(node.api('GET', '/cluster/acme/account/none'), /'none' does not exist/)
})

test('a plugin is kept with what its name server wants, and nothing it does not understand', async () => {
  const add = (params: Record<string, unknown>) => node.api('POST', '/cluster/acme/plugins', { type: 'dns', ...params })
  const lines = (text: string) => Buffer.from(text).toString('base64')
  await assert.rejects(add({ id: 'names', api: 'cf', data: '' }), /Parameter verification failed/)
  await assert.rejects(add({ id: 'names', api: 'nsupdate' }), /Parameter verification failed/)
  const shell = lines('NSUPDATE_SERVER=127.0.0.1\nNSUPDATE_KEY=/k;reboot\n')
  await assert.rejects(add({ id: 'names', api: 'nsupdate', data: shell }), /Parameter verification failed/)
  await add({ id: 'names', api: 'nsupdate', data: acme.nsupdate, 'validation-delay': 7 })
  const { digest, ...kept } = (await node.api('GET', '/cluster/acme/plugins/names')).data as Record<string, unknown>
  assert.deepEqual(kept, { plugin: 'names', type: 'dns', api: 'nsupdate', data: acme.nsupdate, 'validation-delay': 7 })
  await node.api('PUT', '/cluster/acme/plugins/names', { 'validation-delay': 0, digest })
  await assert.rejects(node.api('PUT', '/cluster/acme/plugins/names', { disable: 1, digest }), /detected modified/)
  const all = (await node.api('GET', '/cluster/acme/plugins')).data as { plugin: string }[]
  assert.deepEqual(
    all.map(({ plugin }) => plugin),
    ['standalone', 'names'],
  )
  await assert.rejects(node.api('DELETE', '/cluster/acme/plugins/standalone'), /cannot be removed/)
})

test('names are proven by a file and by the name server, and the certificate is what openssl believes', async () => {
  assert.match(await ended('POST', `${at}/acme/certificate`), /Parameter verification failed/)
  await node.api('PUT', `/nodes/${node.settings.node}/config`, {
    acme: 'domains=node.acme.test',
    acmedomain0: 'domain=*.acme.test,plugin=names',
  })
  assert.equal(await ended('POST', `${at}/acme/certificate`), 'OK')
  const served = await custom()
  assert.ok(served)
  assert.deepEqual(served.san.toSorted(), ['*.acme.test', 'node.acme.test'])
  const bundle = await readFile(join(node.settings.stateDir, 'keys/custom.pem'), 'utf8')
  const directory = await mkdtemp(join(tmpdir(), 'hako-verify-'))
  closing.defer(() => rm(directory, { recursive: true, force: true }))
  await writeFile(join(directory, 'root.pem'), await acme.root())
  await writeFile(join(directory, 'chain.pem'), bundle)
  const believed = execFileSync('openssl', ['verify', '-CAfile', 'root.pem', '-untrusted', 'chain.pem', 'chain.pem'], {
    cwd: directory,
  })
  assert.match(believed.toString(), /OK/)
  assert.match(await ended('POST', `${at}/acme/certificate`), /a custom certificate is there already/)
})

test('it is renewed when it is wanted, revoked at the server, and the account ends', async () => {
  const before = await custom()
  assert.match(await ended('PUT', `${at}/acme/certificate`), /the certificate is good for \d+ more days/)
  assert.equal(await ended('PUT', `${at}/acme/certificate`, { force: 1 }), 'OK')
  const renewed = await custom()
  assert.ok(renewed !== undefined && renewed.fingerprint !== before?.fingerprint)
  const { serialNumber } = new X509Certificate(renewed.pem)
  assert.equal(await acme.isRevoked(serialNumber), false)
  assert.equal(await ended('DELETE', `${at}/acme/certificate`), 'OK')
  assert.equal(await acme.isRevoked(serialNumber), true)
  assert.equal(await custom(), undefined)
  assert.match(await ended('DELETE', `${at}/acme/certificate`), /not served with a certificate that was ordered here/)
  assert.equal(await ended('DELETE', '/cluster/acme/account/default'), 'OK')
  assert.deepEqual((await node.api('GET', '/cluster/acme/account')).data, [])
  assert.deepEqual(await readdir(join(node.settings.stateDir, 'keys/acme')), [])
})

/** A node of its own for each run, with an account and a name unless the operation makes them. */
async function world(with_: 'nothing' | 'account' | 'certificate') {
  await using undo = new AsyncDisposableStack()
  const stateDir = await mkdtemp(join(tmpdir(), 'hako-acme-'))
  undo.defer(() => rm(stateDir, { recursive: true, force: true }))
  const store = undo.use(openMemoryStore())
  const names = { HAKO_STATE_DIR: stateDir, HAKO_NODE: 'localhost', HAKO_ACME_PORT: String(acme.acmePort) }
  const settings = settingsFrom({ ...names, HAKO_CA_FILE: acme.caFile })
  const needs = { settings, store, clock: systemClock, random: systemRandom }
  const deps: CertificateDeps = {
    settings,
    host: machine(),
    clock: systemClock,
    acmeAccounts: new AcmeAccounts(needs),
    acmePlugins: new AcmePlugins(needs),
    certificates: new Certificates(needs),
    nodeConfigs: new NodeConfigs(needs),
  }
  await deps.nodeConfigs.change('localhost', { set: { acmedomain0: 'node.acme.test' }, remove: [] })
  const account = { name: 'default', contact: ['a@acme.test'], directory: acme.directory, tos: 'agreed' }
  const task = { upid: 'test', user: 'root@pam', node: 'localhost', startTime: 0 }
  if (with_ !== 'nothing') await perform(registerAccount, account, deps, memoryJournal(), { task })
  if (with_ === 'certificate') await perform(orderCertificate, {}, deps, memoryJournal(), { task })
  const first = (await deps.certificates.custom())?.fingerprint
  const release = undo.move()
  return {
    deps,
    account,
    look: async () => {
      const now = (await deps.certificates.custom())?.fingerprint
      const known = await Promise.all((await deps.acmeAccounts.names()).map((name) => deps.acmeAccounts.get(name)))
      return {
        accounts: known.map(({ contact }) => contact),
        keys: await readdir(join(stateDir, 'keys/acme')).catch(() => []),
        certificate: now === undefined ? 'none' : now === first ? 'the first' : 'another',
      }
    },
    [Symbol.asyncDispose]: () => release.disposeAsync(),
  }
}

test('what was ordered is renewed in time, and what was brought is left to who brought it', async () => {
  await using made = await world('certificate')
  const { certificates } = made.deps
  const custom = await certificates.custom()
  assert.ok(custom)
  const ends = new X509Certificate(custom.certificate).validToDate.getTime()
  const isDue = (daysBefore: number) =>
    isRenewalDue({ certificates, clock: { ...systemClock, now: () => ends - daysBefore * 86_400_000 } })
  assert.deepEqual([await isDue(31), await isDue(29), await isDue(-1)], [false, true, true])
  using authority = testAuthority()
  const { certificate, key } = authority.sign('node.example')
  await certificates.bring({ certificates: certificate, key, force: true })
  assert.equal(await isDue(-1), false)
})

const quickly = { withCrashes: false, isFinal: true }
everyStepFails(
  registerAccount,
  async () => {
    const made = await world('nothing')
    return { ...made, params: made.account }
  },
  { withCrashes: false },
)
everyStepFails(
  updateAccount,
  async () => ({ ...(await world('account')), params: { name: 'default', contact: ['b@acme.test'] } }),
  quickly,
)
everyStepFails(deactivateAccount, async () => ({ ...(await world('account')), params: { name: 'default' } }), quickly)
everyStepFails(orderCertificate, async () => ({ ...(await world('account')), params: {} }), quickly)
everyStepFails(renewCertificate, async () => ({ ...(await world('certificate')), params: { force: true } }), quickly)
everyStepFails(revokeCertificate, async () => ({ ...(await world('certificate')), params: {} }), quickly)
