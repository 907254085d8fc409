/** A restore that is killed half way leaves nothing under the name it was to write, and nothing in the way of the next. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { datastoreCommand, good, hako } from '../../../test/fixtures/datastore-command.ts'

const home = await mkdtemp(join(tmpdir(), 'hako-killed-restore-'))
after(() => rm(home, { recursive: true }))
process.env.XDG_CACHE_HOME = join(home, 'cache')
const [store, key, image] = [join(home, 'store'), join(home, 'key'), join(home, 'web.raw')]
const opening = ['--key-file', key]
const content = randomBytes(32 * MiB)

before(async () => {
  await writeFile(key, randomBytes(32))
  await writeFile(image, content)
  await writeFile(join(home, 'recovery'), good('init', store, ...opening))
  good('key', 'confirm', store, '--recovery-key-file', join(home, 'recovery'))
  good('backup', store, image, ...opening)
  await mkdir(join(home, 'folder'))
  await writeFile(join(home, 'folder/large'), content)
  good('backup', store, join(home, 'folder'), '--id', 'tree', ...opening)
})

async function isBegun(folder: string): Promise<boolean> {
  for (const name of await readdir(folder)) if ((await stat(join(folder, name))).blocks > 0) return true
  return false
}

test('a disk whose restore is killed has no half of it under its name, and is restored again', async () => {
  const folder = join(home, 'disks')
  const target = join(folder, 'web.raw')
  const args = ['restore', store, 'host/web', target, ...opening]
  await mkdir(folder)
  const child = spawn(process.execPath, [...datastoreCommand, ...args, '--bwlimit', '4096'], { stdio: 'ignore' })
  const ended = once(child, 'close')
  await waitFor(() => isBegun(folder), { what: 'the first bytes', timeoutMs: 30_000, everyMs: 5 })
  child.kill('SIGKILL')
  assert.deepEqual(await ended, [null, 'SIGKILL'])
  assert.deepEqual(await readdir(folder), ['web.raw.hako-part'])
  good(...args)
  assert.ok((await readFile(target)).equals(content))
  assert.deepEqual(await readdir(folder), ['web.raw'])
  const again = hako(...args)
  assert.equal(again.code, 5)
  assert.match(again.err, /'.*\/web\.raw' is there already/)
  assert.deepEqual(await readdir(folder), ['web.raw'])
})

test('a file is fetched past what a fetch that was killed has left', async () => {
  const folder = join(home, 'files')
  await mkdir(folder)
  const target = join(folder, 'copy')
  await writeFile(`${target}.hako-part`, 'half')
  const args = ['get', store, 'host/tree', '/large', target, ...opening]
  good(...args)
  assert.ok((await readFile(target)).equals(content))
  assert.deepEqual(await readdir(folder), ['copy'])
  assert.equal(hako(...args).code, 5)
})
