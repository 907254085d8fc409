/** What reads a disk for a backup gives its memory back: a process does many backups, one after another. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { memorySource } from '../../../test/fixtures/datastore.ts'
import { readBytes, readsAhead } from '../format.ts'
import { readSource } from './read-source.ts'

/** Of all reads of one source at once. */
const roomBytes = (readsAhead + 1) * readBytes

test('twenty disks read one after another hold no more memory than one', async () => {
  const content = Buffer.alloc(5 * MiB, 'x')
  const source = memorySource(content)
  const before = process.memoryUsage().external
  for (let disk = 0; disk < 20; disk += 1) {
    let read = 0
    for await (const { offset, bytes } of readSource(source)) {
      assert.ok(bytes.equals(content.subarray(offset, offset + bytes.length)))
      read += bytes.length
    }
    assert.equal(read, content.length)
  }
  assert.ok(process.memoryUsage().external - before < roomBytes, `${process.memoryUsage().external - before} bytes`)
})

test('who stops reading while more is on its way disturbs nobody', async () => {
  const content = Buffer.alloc(20 * MiB, 'y')
  const finish: (() => void)[] = []
  const slow = {
    ...memorySource(content),
    read: async (offset: number, into: Uint8Array) => {
      if (offset > 0) await new Promise<void>((resolve) => void finish.push(resolve))
      content.copy(into, 0, offset, offset + into.length)
    },
  }
  for await (const { bytes } of readSource(slow)) {
    assert.ok(bytes.every((byte) => byte === content[0]))
    // What was asked for ahead is still to come, and finds its room where it was.
    setImmediate(() => {
      for (const one of finish) one()
    })
    break
  }
  assert.ok(finish.length > 0)
})
