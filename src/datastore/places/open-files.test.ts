import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import { mkdtempDisposable, rename, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { codeOf } from '#host/files.ts'
import { alignedBuffer } from '#host/files/direct-file.ts'
import { OpenFiles } from './open-files.ts'

test('what is read past the page cache is what lies there, wherever it begins and ends', async () => {
  await using folder = await mkdtempDisposable(join(tmpdir(), 'open-files-'))
  const path = join(folder.path, 'pack')
  const content = randomBytes(3 * MiB + 1234)
  await writeFile(path, content)
  const files = new OpenFiles()
  const room = alignedBuffer(2 * MiB)
  const read = (offset: number, length: number) => files.readDirect(path, offset, length, room)
  let seen = 0
  for (let round = 0; round < 200; round += 1) {
    const length = randomInt(1, 2 * MiB + 10_000)
    const offset = round % 4 === 0 ? content.length - length : randomInt(0, content.length - length)
    const bytes = await read(offset, length)
    if (!bytes) continue
    seen += 1
    assert.ok(bytes.equals(content.subarray(offset, offset + length)), `${length} bytes at ${offset}`)
  }
  assert.ok(seen > 50, `${seen} were read so`)
  // Short ones, those with too little room, and those that end behind the file go the ordinary way.
  for (const [offset, length] of [
    [0, 1000],
    [1, 2 * MiB],
    [2 * MiB, 2 * MiB - 4096],
  ] as const) {
    assert.equal(await read(offset, length), undefined, `${length} bytes at ${offset}`)
  }
  await rename(path, `${path}.old`)
  files.forget(path)
  await assert.rejects(read(0, MiB), (error) => codeOf(error) === 'ENOENT')
  await files.closeAll()
})
