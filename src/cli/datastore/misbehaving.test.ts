/** Sources that change, fail or go while `hako datastore backup` reads them: each has one outcome, and nothing half is seen. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { appendFileSync, mkdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { failingDisk } from '../../../test/fixtures/failing-disk.ts'
import { secret, type TemporaryDatastore, temporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import type { Parsed } from '../arguments.ts'
import type { Terminal } from '../terminal.ts'
import { backUp, type BackupResult, restore } from './acts.ts'

const home = await mkdtemp(join(tmpdir(), 'hako-misbehaving-'))
after(() => rm(home, { recursive: true }))
const key = join(home, 'key')
let store: TemporaryDatastore

before(async () => {
  assert.equal(secret.kind, 'key')
  if (secret.kind === 'key') await writeFile(key, secret.key)
})
beforeEach(async (t) => {
  store = await temporaryDatastore()
  if ('after' in t) t.after(() => store[Symbol.asyncDispose]())
})

/** A command whose reader does something as soon as it is told how far it is. */
function terminal(once: () => void = () => {}): Terminal {
  let isDone = false
  return {
    language: 'en',
    width: undefined,
    out: () => {},
    write: () => {},
    readSecret: async () => '',
    readInput: async () => '',
    show: () => {
      if (!isDone) once()
      isDone = true
    },
    isWatched: true,
    signal: new AbortController().signal,
  }
}

function parsed(params: Parsed['params'] = {}): Parsed {
  const global = { output: 'json', quiet: false } as Parsed['global']
  return { positionals: [], params: { 'key-file': key, ...params }, global }
}

async function backedUp(path: string, once?: () => void): Promise<string> {
  const { rows } = await backUp(store.path, [path], parsed({ id: 'one' }), terminal(once))
  return (rows as BackupResult).backup
}

/** No backup is there, and nobody is taken to be writing one. */
async function requireNothing(): Promise<void> {
  const open = await store.reopen()
  assert.deepEqual(await open.datastore.points(), [])
  assert.deepEqual(await readdir(join(store.path, 'leases')), [])
}

test('two backups of one id at once are two backups, each whole', async () => {
  const images = ['a.raw', 'b.raw'].map((name) => join(home, name))
  for (const image of images) await writeFile(image, randomBytes(3 * MiB))
  const names = await Promise.all(images.map((image) => backedUp(image)))
  assert.equal(new Set(names).size, 2, names.join())
  for (const [at, name] of names.entries()) {
    const target = join(home, `restored${at}.raw`)
    await restore(store.path, name, target, parsed(), terminal())
    assert.ok((await readFile(target)).equals(await readFile(images[at] ?? '')))
  }
})

// More than is read ahead.
const imageBytes = 48 * MiB

for (const [what, act] of [
  ['grows', (path: string) => appendFileSync(path, 'more')],
  ['shrinks', (path: string) => truncateSync(path, imageBytes / 2)],
  ['is written to', (path: string) => writeFileSync(path, 'x', { flag: 'r+' })],
] as const) {
  test(`an image that ${what} while it is read is no backup, and that is said`, async () => {
    const image = join(home, 'changing.raw')
    await writeFile(image, Buffer.alloc(imageBytes, 'content'))
    await assert.rejects(
      backedUp(image, () => act(image)),
      (fault) => {
        return isFault(fault, 'conflict') && fault.message === `'${image}' was written to while it was read`
      },
    )
    await requireNothing()
  })
}

test('an image that is replaced while it is read is backed up as it was', async () => {
  const image = join(home, 'replaced.raw')
  const content = randomBytes(12 * MiB)
  await writeFile(image, content)
  const name = await backedUp(image, () => {
    rmSync(image)
    writeFileSync(image, 'another')
  })
  const target = join(home, 'as-it-was.raw')
  await restore(store.path, name, target, parsed(), terminal())
  assert.ok((await readFile(target)).equals(content))
})

test('of a tree, what goes or becomes something else on the way is left out, and the rest is there', async () => {
  const tree = join(home, 'tree')
  mkdirSync(join(tree, 'b-folder'), { recursive: true })
  const kept = randomBytes(32 * MiB)
  // The first is being read when the others go.
  for (const [name, content] of [
    ['a-first', kept],
    ['b-folder/inner', 'inner'],
    ['c-vanishes', 'c'],
    ['d-becomes-a-folder', 'd'],
    ['e-becomes-a-link', 'e'],
    ['f-shrinks', randomBytes(MiB)],
    ['z-last', 'last'],
  ] as const) {
    writeFileSync(join(tree, name), content)
  }
  const name = await backedUp(tree, () => {
    rmSync(join(tree, 'b-folder'), { recursive: true })
    for (const one of ['c-vanishes', 'd-becomes-a-folder', 'e-becomes-a-link']) rmSync(join(tree, one))
    mkdirSync(join(tree, 'd-becomes-a-folder'))
    symlinkSync('/etc/shadow', join(tree, 'e-becomes-a-link'))
    truncateSync(join(tree, 'f-shrinks'), 5)
  })
  const target = join(home, 'tree-restored')
  await restore(store.path, name, target, parsed(), terminal())
  assert.ok((await readFile(join(target, 'a-first'))).equals(kept))
  assert.equal(await readFile(join(target, 'z-last'), 'utf8'), 'last')
  assert.equal((await readFile(join(target, 'f-shrinks'))).length, 5)
  const there = await readdir(target)
  assert.ok(!there.includes('c-vanishes'), there.join())
})

test('a device and a file that cannot be read in one place are no backup, and the place is named', async () => {
  await using bare = await failingDisk(16 * MiB, true)
  await writeFile(bare.device, randomBytes(16 * MiB), { flag: 'r+' })
  await bare.forget()
  await bare.fail({ how: 'read', sectors: [(9 * MiB) / 512] })
  const unread = (path: string) => (fault: unknown) => {
    const [, from = NaN, to = NaN] =
      /cannot be read at bytes (\d+)-(\d+): its disk/.exec(String(fault))?.map(Number) ?? []
    return isFault(fault, 'failed') && fault.message.startsWith(`'${path}' `) && from <= 9 * MiB && to > 9 * MiB
  }
  await assert.rejects(backedUp(bare.device), unread(bare.device))
  await requireNothing()

  await using disk = await failingDisk(32 * MiB)
  const image = join(disk.path, 'image.raw')
  await writeFile(image, randomBytes(16 * MiB))
  await disk.fail({ how: 'read', sectors: [await disk.sectorOf(image, 9 * MiB)] })
  await disk.forget()
  await assert.rejects(backedUp(image), unread(image))
  await requireNothing()
})
