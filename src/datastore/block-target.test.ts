/** What is written to a file comes back from it, wherever it lies and however it is cut. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { KiB, MiB } from '#base/bytes.ts'
import { alignedBuffer } from '#host/direct-file.ts'
import { fileTarget } from './block-target.ts'

// A file system in memory has nothing but the page cache.
for (const parent of [tmpdir(), '/dev/shm']) {
  test(`blocks, parts of blocks and holes come back from a file in ${parent}`, async () => {
    const directory = await mkdtemp(join(parent, 'hako-target-'))
    try {
      const path = join(directory, 'disk.raw')
      await writeFile(path, '')
      const sizeBytes = 3 * MiB + 700
      const content = alignedBuffer(sizeBytes)
      const fill = (from: number, to: number) => content.set(randomBytes(to - from), from)
      fill(0, MiB)
      fill(2 * MiB, sizeBytes)
      {
        await using target = await fileTarget(path, sizeBytes)
        const parts = [
          [0, 128 * KiB],
          [128 * KiB, 256 * KiB + 512],
          [256 * KiB + 512, MiB],
          [2 * MiB, 3 * MiB],
          [3 * MiB, sizeBytes],
        ] as const
        await Promise.all(parts.map(([from, to]) => target.write(from, content.subarray(from, to))))
        // From memory that begins anywhere.
        const odd = Buffer.allocUnsafeSlow(64 * KiB + 3).subarray(3)
        content.copy(odd, 0, 64 * KiB)
        await target.write(64 * KiB, odd)
        await target.flush()
      }
      assert.ok((await readFile(path)).equals(content))
      assert.ok((await stat(path)).blocks * 512 < 2.5 * MiB, 'the hole stays one')
    } finally {
      await rm(directory, { recursive: true })
    }
  })
}
