/** What may be served, by certificates the real openssl made. */
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Clock, systemClock } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { openMemoryStore } from '#store/memory.ts'
import { testAuthority } from '../../test/fixtures/test-authority.ts'
import { Certificates, changesBelow } from './certificates.ts'
import type { ServerCertificate } from './self-signed.ts'
import { checkUploaded } from './uploaded-certificate.ts'

const later = (days: number): Clock => ({ ...systemClock, now: () => Date.now() + days * 86_400_000 })
const complaint = (field: string, text: RegExp) => (error: unknown) =>
  isFault(error, 'invalid') && text.test(error.fields?.[field] ?? '')

test('a certificate clients would refuse is refused, and told why', () => {
  using authority = testAuthority()
  const [good, other] = [authority.sign('a.example'), authority.sign('b.example')]
  const weak = authority.sign('weak.example', ['-newkey', 'rsa:512'])
  const refused = (certificates: string, key: string, field: string, text: RegExp, clock = systemClock) =>
    assert.throws(() => checkUploaded(certificates, key, clock), complaint(field, text))
  const chain = good.certificate + authority.certificate
  refused('nothing', good.key, 'certificates', /no PEM certificate/)
  refused(good.certificate.replace(/\n[A-Za-z0-9]{8}/, '\nAAAAAAAA'), good.key, 'certificates', /1 cannot be read/)
  refused(good.key + good.certificate, good.key, 'certificates', /something else than certificates/)
  refused(good.certificate.repeat(11), good.key, 'certificates', /at most 10/)
  refused(chain, 'nothing', 'key', /no PEM private key/)
  refused(
    chain,
    '-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----',
    'key',
    /pass phrase/,
  )
  refused(chain, other.key, 'key', /not the one of the first certificate/)
  refused(authority.certificate + good.certificate, good.key, 'key', /not the one of the first certificate/)
  refused(good.certificate + other.certificate, good.key, 'certificates', /2 is not the one that signed certificate 1/)
  refused(chain, good.key, 'certificates', /1 ended at/, later(31))
  refused(chain, good.key, 'certificates', /1 begins only at/, later(-31))
  refused(weak.certificate, weak.key, 'certificates', /cannot be served: .*too small/)
  assert.equal(checkUploaded(`remarks\n${chain}`, good.key, systemClock).certificate, chain)
})

async function world(undo: AsyncDisposableStack, clock: Clock = systemClock) {
  const stateDir = await mkdtemp(join(tmpdir(), 'hako-certificates-'))
  undo.defer(() => rm(stateDir, { recursive: true, force: true }))
  const store = undo.use(openMemoryStore())
  const needs = { settings: { stateDir, node: 'lab' }, store, clock, random: systemRandom }
  const served: ServerCertificate[] = []
  const serve = async (certificate: ServerCertificate) => void served.push(certificate)
  return { needs, stateDir, store, served, serve }
}

test('a key is kept where only root reads it, and is used again when only the certificate is renewed', async () => {
  await using undo = new AsyncDisposableStack()
  using authority = testAuthority()
  const { needs, stateDir, store } = await world(undo)
  const certificates = new Certificates(needs)
  const { certificate, key } = authority.sign('a.example')
  await assert.rejects(certificates.bring({ certificates: certificate }), complaint('key', /is missing/))
  await certificates.bring({ certificates: certificate, key })
  assert.equal((await stat(join(stateDir, 'keys', 'custom.pem'))).mode & 0o777, 0o600)
  assert.equal((await certificates.custom())?.key, await readFile(join(authority.directory, 'leaf.key'), 'utf8'))
  await assert.rejects(certificates.bring({ certificates: certificate, key }), (error) => isFault(error, 'conflict'))
  const longer = certificate + authority.certificate
  const { fingerprint } = await certificates.bring({ certificates: longer, force: true })
  assert.equal((await certificates.wanted()).certificate, longer)
  assert.equal((await store.get(`${changesBelow}lab`))?.value, fingerprint)
  await certificates.remove()
  await certificates.remove()
  assert.equal((await certificates.wanted()).certificate, (await certificates.own()).certificate)
})

test('what serves is told of each change once, and of a self-signed certificate that was about to end', async () => {
  await using undo = new AsyncDisposableStack()
  using authority = testAuthority()
  let days = 0
  const { needs, served, serve } = await world(undo, { ...systemClock, now: () => later(days).now() })
  const certificates = new Certificates(needs)
  const own = await certificates.wanted()
  await certificates.serveWith(serve, own)
  await certificates.apply()
  assert.equal(served.length, 0)
  days = 800
  await certificates.apply()
  await certificates.apply()
  const [renewed, ...others] = [...served]
  assert.deepEqual(others, [])
  assert.ok(renewed !== undefined && renewed.fingerprint !== own.fingerprint)
  days = 0
  const leaf = authority.sign('a.example')
  await certificates.bring({ certificates: leaf.certificate, key: leaf.key })
  // The same certificate, now with the one that vouches for it.
  await certificates.bring({ certificates: leaf.certificate + authority.certificate, force: true })
  assert.deepEqual(
    served.slice(1).map(({ certificate }) => certificate),
    [leaf.certificate, leaf.certificate + authority.certificate],
  )
})
