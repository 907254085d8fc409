import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { alignedBuffer } from '#host/files/direct-file.ts'
import { blake3Mac, NameDigest, packMagic } from './digests.ts'

function nameOf(...parts: readonly Uint8Array[]): string {
  const digest = new NameDigest()
  for (const part of parts) digest.update(part)
  return digest.hex()
}

test('a MAC is that of the test vectors of BLAKE3', () => {
  // test_vectors.json of BLAKE3: keyed_hash, its first 32 bytes; the input counts from 0 to 250 and again.
  const mac = blake3Mac(Buffer.from('whats the Elvish word for friend'))
  const known: Readonly<Record<number, string>> = {
    0: '92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26',
    1: '6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b',
    1024: '75c46f6f3d9eb4f55ecaaee480db732e6c2105546f1e675003687c31719c7ba4',
  }
  for (const [length, digest] of Object.entries(known)) {
    const input = Uint8Array.from({ length: Number(length) }, (_, at) => at % 251)
    assert.equal(mac(input).toString('hex'), digest, `${length} bytes`)
  }
})

test('one MAC after another is its own, whatever memory the content lies in', () => {
  const key = randomBytes(32)
  const mac = blake3Mac(key)
  const [first, second] = [randomBytes(131_072), randomBytes(70)]
  const aligned = alignedBuffer(first.length)
  aligned.set(first)
  const made = [mac(first), mac(second), mac(aligned), mac(Buffer.concat([second, first]).subarray(70))]
  assert.ok(made[2]?.equals(made[0] ?? second))
  assert.ok(made[3]?.equals(made[0] ?? second))
  assert.ok(made[1]?.equals(blake3Mac(key)(second)))
  assert.ok(!made[0]?.equals(blake3Mac(randomBytes(32))(first)))
})

test('how a file begins says what it is called by, in whatever parts it comes', () => {
  const content = randomBytes(5_000)
  const pack = Buffer.concat([packMagic, content])
  const [ofPack, ofOther] = [nameOf(pack), createHash('sha256').update(content).digest('hex')]
  assert.notEqual(ofPack, createHash('sha256').update(pack).digest('hex'))
  assert.equal(nameOf(), createHash('sha256').digest('hex'))
  fc.assert(
    fc.property(fc.array(fc.nat(5_000)), (cuts) => {
      const inParts = (whole: Buffer) => {
        const at = [0, ...cuts.toSorted((a, b) => a - b), whole.length]
        return nameOf(...at.slice(1).map((to, number) => whole.subarray(at[number], to)))
      }
      assert.equal(inParts(pack), ofPack)
      assert.equal(inParts(content), ofOther)
    }),
  )
})
