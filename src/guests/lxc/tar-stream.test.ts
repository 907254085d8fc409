import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { memberBytes, paxOf, tarEnd, tarOf } from '../../../test/fixtures/tar-writer.ts'
import { checkedTar, inLargePieces, type TarCounts, type TarRules } from './tar-stream.ts'

const host = machine()
const any: TarRules = { keepsDevices: true, mostEntries: 10_000, mostBytes: 1e9 }
const counts = (): TarCounts => ({ entries: 0, bytes: 0, leftOut: 0 })

async function* cut(bytes: Buffer, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  for (let [at, turn] = [0, 0]; at < bytes.length; turn += 1) {
    const size = sizes[turn % sizes.length] ?? 512
    yield bytes.subarray(at, at + size)
    at += size
  }
}

async function through(bytes: Buffer, sizes: readonly number[], rules = any): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const part of inLargePieces(checkedTar(cut(bytes, sizes), rules, counts()))) parts.push(part)
  return Buffer.concat(parts)
}

suite('an archive that streams by', () => {
  let home: string
  before(async () => (home = await mkdtemp(join(tmpdir(), 'hako-stream-'))))
  after(() => rm(home, { recursive: true, force: true }))

  test('comes out as it went in, however it was cut, and is told apart as GNU tar does', async () => {
    const long = 'name/'.repeat(40)
    await host.run(['mkdir', '-p', join(home, 'tree', long)])
    await writeFile(join(home, 'tree/file'), 'x'.repeat(5_000))
    await host.run(['ln', join(home, 'tree/file'), join(home, 'tree', long, 'again')])
    await host.run(['truncate', '-s', '8M', join(home, 'tree/holes')])
    await host.run([
      'dd',
      'if=/dev/urandom',
      `of=${join(home, 'tree/holes')}`,
      'bs=4k',
      'count=1',
      'seek=1000',
      'conv=notrunc',
    ])
    for (const format of ['ustar', 'gnu', 'pax', 'oldgnu']) {
      const archive = join(home, `${format}.tar`)
      await host.run([
        'tar',
        '-c',
        format === 'ustar' ? '--exclude=./holes' : '-S',
        `--format=${format}`,
        '-C',
        join(home, 'tree'),
        '-f',
        archive,
        '.',
      ])
      const bytes = await readFile(archive)
      for (const sizes of [[bytes.length], [1, 511, 512, 513], [65_536]]) {
        const out = await through(bytes, sizes)
        // It ends after its members, without what it was filled up with.
        assert.equal(Buffer.compare(out, bytes.subarray(0, out.length)), 0, `${format} ${sizes.join(' ')}`)
      }
      await writeFile(archive, await through(bytes, [10_240]))
      await host.run(['tar', '--compare', '-C', join(home, 'tree'), '-f', archive])
    }
  })

  test('says of all members at most what does not change them', async () => {
    const tar = (facts: Record<string, string>) => tarOf([paxOf(facts, 'g'), { name: 'a', content: 'x' }])
    assert.deepEqual(await through(tar({ comment: 'made by a tool' }), [512]), tarOf([{ name: 'a', content: 'x' }]))
    for (const key of ['path', 'linkpath', 'size', 'uid', 'GNU.sparse.realsize', 'SCHILY.xattr.user.x']) {
      await assert.rejects(through(tar({ [key]: '1' }), [512]), (fault) => isFault(fault, 'invalid'), key)
    }
  })

  test('is not let through as members nobody knows, nor with endless descriptions', async () => {
    for (const type of ['V', 'M', 'D', 'N', 'A', '8', '\u00ff']) {
      await assert.rejects(through(tarOf([{ name: 'a', type }]), [512]), (fault) => isFault(fault, 'invalid'), type)
    }
    const endless = [
      tarOf([{ name: 'long', type: 'L', sizeBytes: 2 ** 30 }]),
      Buffer.concat([...Array.from({ length: 2_000 }, () => memberBytes(paxOf({ comment: 'x'.repeat(500) }))), tarEnd]),
      tarOf([paxOf({ path: 'a' })]),
      tarOf([{ name: 'x', type: 'x', content: '9999999 path=a\n' }, { name: 'a' }]),
    ]
    for (const bytes of endless) await assert.rejects(through(bytes, [512]), (fault) => isFault(fault, 'damaged'))
  })

  test('of any bytes is let through or refused, and nothing else happens', async () => {
    const good = tarOf([
      paxOf({ path: 'a/b', uid: '7' }),
      { name: 'x', content: 'x'.repeat(1_000) },
      { name: 'link', type: '2', target: 'a' },
      { name: 'holes', type: 'S', content: 'y' },
    ])
    const change = fc.record({ at: fc.nat(good.length - 1), byte: fc.nat(255) })
    const asIs = fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 8 }), async (changes) => {
      const bytes = Buffer.from(good)
      for (const { at, byte } of changes) bytes[at] = byte
      await through(bytes, [700]).catch((fault: unknown) => {
        assert.ok(isFault(fault), String(fault))
      })
    })
    await fc.assert(asIs, { numRuns: 300 })
  })
})
