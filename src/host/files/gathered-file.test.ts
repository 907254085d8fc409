/** A gathered file holds what was written to it, wherever it lies. */
import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { asFileFault } from '../files.ts'
import { machine } from '../exec.ts'
import { openGathered } from './gathered-file.ts'

async function place(parent: string) {
  const directory = await mkdtemp(join(parent, 'hako-gathered-'))
  return {
    path: join(directory, 'file'),
    directory,
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  }
}

/** Bytes that differ everywhere, so that a piece in the wrong place is seen. */
function bytesOf(length: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let at = 0; at + 4 <= length; at += 4) bytes.writeUInt32LE((at * 2654435761) % 2 ** 32, at)
  return bytes
}

for (const parent of ['/var/tmp', '/dev/shm', tmpdir()]) {
  test(`whatever the pieces, below ${parent}`, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 0, max: 700_000 }), { maxLength: 6 }), async (lengths) => {
        await using here = await place(parent)
        const whole = bytesOf(lengths.reduce((sum, length) => sum + length, 0))
        {
          await using file = await openGathered(here.path)
          let at = 0
          for (const length of lengths) {
            await file.write(whole.subarray(at, at + length))
            at += length
          }
          await file.flush()
        }
        assert.ok(whole.equals(await readFile(here.path)))
        assert.equal((await stat(here.path)).mode & 0o777, 0o600)
      }),
      { numRuns: 12 },
    )
  })
}

test('a file that is there already is not touched', async () => {
  await using here = await place('/var/tmp')
  {
    await using file = await openGathered(here.path)
    await file.write(Buffer.from('first'))
    await file.flush()
  }
  await assert.rejects(openGathered(here.path), { code: 'EEXIST' })
  assert.equal(await readFile(here.path, 'utf8'), 'first')
})

test('a full disk is said, at the latest when everything should be there', async () => {
  await using here = await place('/var/tmp')
  const small = join(here.directory, 'small')
  await mkdir(small)
  const host = machine()
  await host.run(['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', small])
  try {
    await using file = await openGathered(join(small, 'file'))
    const fill = async () => {
      for (let at = 0; at < 4; at += 1) await file.write(bytesOf(512 * 1024))
      await file.flush()
    }
    await assert.rejects(fill, (cause: unknown) => {
      assert.match(String(asFileFault(cause, 'file')), /no space/)
      return true
    })
  } finally {
    await host.run(['umount', small])
  }
})
