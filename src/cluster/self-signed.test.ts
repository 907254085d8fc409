/** The node's own certificate. */
import assert from 'node:assert/strict'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Clock, systemClock } from '#base/clock.ts'
import { ensureCertificate } from './self-signed.ts'

async function directoryFor(undo: AsyncDisposableStack): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'hako-tls-'))
  undo.defer(() => rm(directory, { recursive: true, force: true }))
  return join(directory, 'keys')
}

const later = (days: number): Clock => ({ ...systemClock, now: () => Date.now() + days * 86_400_000 })

test('the certificate is for the node, localhost and both loopbacks, on P-256', async () => {
  await using undo = new AsyncDisposableStack()
  const directory = await directoryFor(undo)
  const { certificate, key, fingerprint } = await ensureCertificate({
    directory,
    node: 'Lab',
    addresses: ['192.0.2.7'],
  })
  const parsed = new X509Certificate(certificate)
  for (const name of ['localhost', 'lab']) assert.ok(parsed.checkHost(name), name)
  for (const address of ['127.0.0.1', '::1', '192.0.2.7']) assert.ok(parsed.checkIP(address), address)
  assert.equal(parsed.checkHost('example.org'), undefined)
  assert.ok(parsed.checkPrivateKey(createPrivateKey(key)))
  assert.equal(parsed.publicKey.asymmetricKeyDetails?.namedCurve, 'prime256v1')
  assert.equal(parsed.ca, false)
  assert.match(fingerprint, /^([0-9A-F]{2}:){31}[0-9A-F]{2}$/)
  assert.equal((await stat(join(directory, 'tls.key'))).mode & 0o777, 0o600)
  assert.equal(await readFile(join(directory, 'tls.key'), 'utf8'), key)
})

test('it is kept, until it is about to end or the node has another name', async () => {
  await using undo = new AsyncDisposableStack()
  const directory = await directoryFor(undo)
  const first = await ensureCertificate({ directory, node: 'lab' })
  const again = await ensureCertificate({ directory, node: 'lab', clock: later(700) })
  assert.equal(again.fingerprint, first.fingerprint)
  const renewed = await ensureCertificate({ directory, node: 'lab', clock: later(800) })
  assert.notEqual(renewed.fingerprint, first.fingerprint)
  const renamed = await ensureCertificate({ directory, node: 'other', clock: later(800) })
  assert.notEqual(renamed.fingerprint, renewed.fingerprint)
  assert.ok(new X509Certificate(renamed.certificate).checkHost('other'))
})
