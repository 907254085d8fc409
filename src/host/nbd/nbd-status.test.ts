import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { KiB, MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { serveImage } from '../../../test/fixtures/nbd-server.ts'
import { machine } from '../exec.ts'
import { NbdClient } from './nbd.ts'
import { extentsOf, parseStatus, type StatusRun } from './nbd-status.ts'

const host = machine()
const grain = 64 * KiB

test('extents tell what was written since a bitmap began, and what is zero', async () => {
  const path = await mkdtemp(join(tmpdir(), 'hako-status-'))
  try {
    const [image, socket] = [join(path, 'disk.qcow2'), join(path, 'nbd.sock')]
    const write = (what: string) => host.run(['qemu-io', '-f', 'qcow2', '-c', what, image])
    await host.run(['qemu-img', 'create', '-q', '-f', 'qcow2', image, '32M'])
    await write('write -P 1 0 8M')
    await host.run(['qemu-img', 'bitmap', '--add', '-g', `${grain}`, '-f', 'qcow2', image, 'a/b:c'])
    const dirty = new Set<number>()
    for (let round = 0; round < 8; round += 1) {
      const [offset, length] = [randomInt(32 * MiB - 300 * KiB), 1 + randomInt(300 * KiB)]
      await write(`write -P 2 ${offset} ${length}`)
      for (let at = Math.floor(offset / grain); at * grain < offset + length; at += 1) dirty.add(at)
    }
    await using _server = await serveImage(image, 'qcow2', socket, ['--read-only', '--bitmap=a/b:c'])
    await using client = await NbdClient.connect(socket, { bitmap: 'a/b:c' })
    let end = 0
    for await (const { offset, length, isZero, isUnchanged } of client.extents()) {
      assert.equal(offset, end)
      end += length
      for (let at = Math.floor(offset / grain); at * grain < end; at += 1) assert.equal(isUnchanged, !dirty.has(at))
      if (isZero) assert.ok(offset >= 8 * MiB && isUnchanged === true)
    }
    assert.equal(end, 32 * MiB)
    const outcome = await NbdClient.connect(socket, { bitmap: 'another' }).catch((cause: unknown) => cause)
    assert.ok(isFault(outcome, 'missing') && outcome.message.includes("no bitmap 'another'"), String(outcome))
  } finally {
    await rm(path, { recursive: true })
  }
})

test('runs of two contexts are told as far as both reach, each part with the flags of both', () => {
  const runs = fc.array(fc.record({ length: fc.integer({ min: 1, max: 9 }), flags: fc.nat(3) }), { maxLength: 12 })
  const flat = (list: readonly StatusRun[]) => list.flatMap(({ length, flags }) => Array.from({ length }, () => flags))
  fc.assert(
    fc.property(runs, runs, (allocation, bitmap) => {
      const extents = extentsOf(100, { allocation, bitmap })
      const [a, b] = [flat(allocation), flat(bitmap)]
      const told = extents.flatMap(({ length, ...kind }) => Array.from({ length }, () => kind))
      assert.equal(told.length, Math.min(a.length, b.length))
      for (const [at, { isZero, isUnchanged }] of told.entries()) {
        assert.deepEqual([isZero, isUnchanged], [((a[at] ?? 0) & 2) !== 0, ((b[at] ?? 0) & 1) === 0])
      }
      assert.ok(extents.every(({ offset }, at) => offset === 100 + sum(extents.slice(0, at).map((one) => one.length))))
      assert.equal(sum(extentsOf(0, { bitmap }).map((one) => one.length)), b.length)
    }),
  )
})

test('what a server says of more than it was asked for is cut, and nonsense is no status', () => {
  const payload = (...words: number[]) => {
    const bytes = Buffer.alloc(words.length * 4)
    for (const [at, word] of words.entries()) bytes.writeUInt32BE(word, at * 4)
    return bytes
  }
  assert.deepEqual(parseStatus(payload(5, 512, 2, 4_096, 0), 1_024), {
    context: 5,
    runs: [
      { length: 512, flags: 2 },
      { length: 512, flags: 0 },
    ],
  })
  for (const odd of [payload(5), payload(5, 512), payload(5, 0, 0), payload(5, 512, 0, 1)]) {
    assert.equal(parseStatus(odd, 1_024), undefined)
  }
})

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}
