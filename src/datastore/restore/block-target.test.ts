/** What is written to a file comes back from it, wherever it lies and however it is cut; so does what is read by a backup. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { KiB, MiB } from '#base/bytes.ts'
import { alignedBuffer } from '#host/files/direct-file.ts'
import { fileTarget } from './block-target.ts'
import { fileSource } from '../backup/source/file.ts'

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
      await using source = await fileSource(path)
      for (const [from, to] of [
        [0, sizeBytes],
        [MiB, 3 * MiB],
        [4_095, 9_000],
      ] as const) {
        // The second lies as memory of our own does, the others begin anywhere.
        const into = alignedBuffer(to - from + 3).subarray(from === MiB ? 0 : 3, from === MiB ? to - from : undefined)
        await source.read(from, into)
        assert.ok(into.equals(content.subarray(from, to)))
      }
      await assert.rejects(source.read(3 * MiB, alignedBuffer(4 * KiB)), /ends 3396 bytes early/)
      assert.ok((await stat(path)).blocks * 512 < 2.5 * MiB, 'the hole stays one')
    } finally {
      await rm(directory, { recursive: true })
    }
  })
}
