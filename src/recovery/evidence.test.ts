import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { verifyEvidence } from './evidence.ts'
import { nodeKey } from './node-key.ts'
import type { DrillRecord } from './record.ts'
import { RecoveryService } from './service.ts'

const record = (id: string): DrillRecord => ({
  id,
  node: 'lab',
  upid: 'UPID:lab:00000001:00000001:00000001:hakodrill:100:root@pam:',
  guest: 'vm/100',
  archive: 'local:backup/vm/100/2026-01-01T00:00:00Z',
  started: '2026-01-01T00:00:41.000Z',
  ended: '2026-01-01T00:00:49.000Z',
  wanted: 'L6',
  reached: 'L6',
  proven: true,
  verdicts: [],
  phases: { fetch: 100 },
  quote: 'VM 100 proven to L6',
})

async function keptEvidence() {
  const stateDir = await mkdtemp(join(tmpdir(), 'hako-evidence-'))
  const service = new RecoveryService({ stateDir })
  const files = new Map<string, string | Uint8Array>([
    ['console.txt', 'READY\n'],
    ['screen.png', Uint8Array.of(137, 80, 78, 71)],
  ])
  const directory = await service.keep(record('20260101T000041Z-vm-100'), files)
  return { stateDir, service, directory, [Symbol.asyncDispose]: () => rm(stateDir, { recursive: true }) }
}

test('evidence verifies with nothing but the directory and the public key', async () => {
  await using kept = await keptEvidence()
  const verdict = await verifyEvidence(kept.directory, await readFile(kept.service.publicKeyPath, 'utf8'))
  assert.deepEqual(verdict.complaints, [])
  assert.equal(verdict.ok, true)
  assert.deepEqual(
    verdict.manifest?.files.map(({ name }) => name),
    ['record.json', 'console.txt', 'screen.png'],
  )
})

test('any flipped bit of any file is found and blamed on that file', async () => {
  await using kept = await keptEvidence()
  const publicKey = await kept.service.publicKey()
  const names = await readdir(kept.directory)
  assert.equal(names.length, 5)
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...names), fc.nat(), fc.integer({ min: 0, max: 7 }), async (name, at, bit) => {
      const path = join(kept.directory, name)
      const good = await readFile(path)
      const bad = Buffer.from(good)
      bad.writeUInt8(bad.readUInt8(at % bad.length) ^ (1 << bit), at % bad.length)
      await writeFile(path, bad)
      const { ok, complaints } = await verifyEvidence(kept.directory, publicKey)
      await writeFile(path, good)
      assert.equal(ok, false)
      assert.match(complaints[0] ?? '', new RegExp(`^${name.replaceAll('.', '\\.')}:`))
    }),
    { numRuns: 300 },
  )
})

test('a missing, a longer and an added file are named', async () => {
  await using kept = await keptEvidence()
  const publicKey = await kept.service.publicKey()
  await rm(join(kept.directory, 'screen.png'))
  await appendFile(join(kept.directory, 'console.txt'), 'x')
  await writeFile(join(kept.directory, 'note.txt'), 'I was here')
  const { complaints } = await verifyEvidence(kept.directory, publicKey)
  assert.deepEqual(
    complaints.map((text) => text.split(':')[0]),
    ['console.txt', 'screen.png', 'note.txt'],
  )
})

test('evidence signed by another key is refused', async () => {
  await using kept = await keptEvidence()
  const other = generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'pem' }).toString()
  const { complaints } = await verifyEvidence(kept.directory, other)
  assert.match(complaints[0] ?? '', /^manifest\.sig: the signature is not by this key/)
})

test('each evidence names the one before it', async () => {
  await using kept = await keptEvidence()
  const second = await kept.service.keep(record('20260102T000000Z-vm-100'), new Map())
  const { manifest } = await verifyEvidence(second, await kept.service.publicKey())
  assert.equal(manifest?.previous?.drill, '20260101T000041Z-vm-100')
  assert.deepEqual(
    (await kept.service.list()).map(({ id }) => id),
    ['20260102T000000Z-vm-100', '20260101T000041Z-vm-100'],
  )
})

test('evidence that somebody damaged does not keep the next from being written', async () => {
  await using kept = await keptEvidence()
  await rm(join(kept.directory, 'manifest.json'))
  const second = await kept.service.keep(record('20260102T000000Z-vm-100'), new Map())
  const { complaints, manifest } = await verifyEvidence(second, await kept.service.publicKey())
  assert.deepEqual(complaints, [])
  assert.equal(manifest?.previous?.drill, '20260101T000041Z-vm-100')
})

test('evidence that could not be written leaves nothing, and neither does a writer that died', async () => {
  await using kept = await keptEvidence()
  const evidence = join(kept.stateDir, 'evidence')
  const before = await readdir(evidence)
  const id = '20260102T000000Z-vm-100'
  await assert.rejects(kept.service.keep(record(id), new Map([['a/b', 'no name for a file']])))
  assert.deepEqual(await readdir(evidence), before)
  await mkdir(join(evidence, `.${id}.tmp`))
  await kept.service.discardUnfinished(id)
  assert.deepEqual(await readdir(evidence), before)
})

test('all who are the first to need the key of a node get the same one', async () => {
  const keys = await mkdtemp(join(tmpdir(), 'hako-keys-'))
  try {
    const all = await Promise.all(Array.from({ length: 12 }, () => nodeKey(keys)))
    assert.equal(new Set(all.map(({ publicKey }) => publicKey)).size, 1)
    assert.equal(await readFile(join(keys, 'evidence.pub'), 'utf8'), (await nodeKey(keys)).publicKey)
    assert.deepEqual((await readdir(keys)).toSorted(), ['evidence.key', 'evidence.pub'])
  } finally {
    await rm(keys, { recursive: true })
  }
})

test('a drill id that leaves the evidence directory does not exist', async () => {
  await using kept = await keptEvidence()
  await assert.rejects(kept.service.get('../keys'), /drill '\.\.\/keys' does not exist/)
})
