import assert from 'node:assert/strict'
import { chmod, cp, mkdtemp, open, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { machine } from '../exec.ts'
import { fileState, isSameState, settledFileState } from './file-state.ts'

const host = machine()

async function fileIn(directory: string): Promise<string> {
  const path = join(directory, 'disk.raw')
  await writeFile(path, Buffer.alloc(64 * 1024, 1))
  return path
}

const changes: Readonly<Record<string, (path: string) => Promise<void>>> = {
  'a write': async (path) => {
    await using file = await open(path, 'r+')
    await file.write('x', 5)
  },
  'a write past the page cache': async (path) => {
    await host.run(['dd', 'if=/dev/zero', `of=${path}`, 'bs=4096', 'count=1', 'oflag=direct', 'conv=notrunc'])
  },
  'a write whose time is set back': async (path) => {
    const { atimeMs, mtimeMs } = await stat(path)
    await using file = await open(path, 'r+')
    await file.write('x', 5)
    await utimes(path, atimeMs / 1000, mtimeMs / 1000)
  },
  'another size': async (path) => {
    await using file = await open(path, 'r+')
    await file.truncate(128 * 1024)
  },
  'a copy in its place': async (path) => {
    await cp(path, `${path}.new`, { preserveTimestamps: true })
    await rename(`${path}.new`, path)
  },
  'other rights': (path) => chmod(path, 0o640),
}

for (const [what, change] of Object.entries(changes)) {
  test(`${what} makes the state of a file another`, async () => {
    const directory = await mkdtemp('/var/tmp/hako-state-')
    try {
      const path = await fileIn(directory)
      const before = await settledFileState(path, systemClock)
      assert.ok(before)
      const still = await fileState(path)
      assert.ok(still && isSameState(before, still))
      await change(path)
      const after = await fileState(path)
      assert.ok(after && !isSameState(before, after))
    } finally {
      await rm(directory, { recursive: true })
    }
  })
}

test('a write at once after the state was told makes it another', async () => {
  const directory = await mkdtemp('/var/tmp/hako-state-')
  try {
    const path = await fileIn(directory)
    for (let round = 0; round < 20; round += 1) {
      await using file = await open(path, 'r+')
      await file.write(String(round), 5)
      const before = await settledFileState(path, systemClock)
      await file.write(String(round + 1), 5)
      const after = await fileState(path)
      assert.ok(before && after && !isSameState(before, after))
    }
  } finally {
    await rm(directory, { recursive: true })
  }
})

test('nothing is said of what is no file of this kernel, nor of a file from the future', async () => {
  assert.equal(await fileState('/proc/self/status'), undefined)
  assert.equal(await fileState('/var/tmp'), undefined)
  const directory = await mkdtemp('/var/tmp/hako-state-')
  try {
    const path = await fileIn(directory)
    const clock = { ...systemClock, now: () => systemClock.now() - 60_000 }
    assert.equal(await settledFileState(path, clock), undefined)
  } finally {
    await rm(directory, { recursive: true })
  }
})
