import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtemp, open, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { DatabaseSync } from 'node:sqlite'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type Fault, isFault } from '#base/fault.ts'
import { storeConformance } from './conformance.ts'
import { openSqliteStore } from './sqlite.ts'

async function place() {
  const directory = await mkdtemp(join(tmpdir(), 'hako-store-'))
  return {
    path: join(directory, 'store.sqlite'),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  }
}

storeConformance('sqlite', async () => {
  const here = await place()
  return { open: (clock) => openSqliteStore(here.path, { clock }), [Symbol.asyncDispose]: here[Symbol.asyncDispose] }
})

const isDamaged = (error: unknown): error is Fault => {
  assert.ok(isFault(error, 'damaged'), String(error))
  assert.match(error.message, /the store '.*store\.sqlite' is damaged: /)
  assert.match(error.remedy ?? '', /Stop the node, move .* aside/)
  return true
}

const writer = fileURLToPath(new URL('../../test/fixtures/store/writer.ts', import.meta.url))

/** Starts a process that writes pairs and prints each number it was promised; kills it after some of them. */
async function writeAndKill(path: string, killAfter: number): Promise<number> {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', writer, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = new Promise((resolve) => child.once('exit', resolve))
  let [last, count] = [-1, 0]
  for await (const line of createInterface(child.stdout)) {
    last = Number(line)
    count += 1
    if (count === killAfter) child.kill('SIGKILL')
  }
  await ended
  return last
}

test('a writer killed in a loop loses nothing it was promised and shows no half transaction', async () => {
  await using here = await place()
  for (let round = 0; round < 12; round += 1) {
    const promised = await writeAndKill(here.path, 1 + ((round * 7) % 40))
    await using store = await openSqliteStore(here.path)
    const [left, right] = [await store.list<number>('left/'), await store.list<number>('right/')]
    assert.deepEqual(
      left.map(({ key }) => key.slice('left/'.length)),
      right.map(({ key }) => key.slice('right/'.length)),
    )
    const highest = (await store.get<number>('highest'))?.value ?? -1
    assert.ok(highest >= promised, `promised ${promised}, found ${highest}`)
    assert.equal(left.length, highest + 1)
  }
})

test('writes asked for in one turn are committed together', async () => {
  await using here = await place()
  await using store = await openSqliteStore(here.path)
  await using other = await openSqliteStore(here.path)
  const versions = new Set<number>()
  const counter = new DatabaseSync(here.path)
  const version = counter.prepare('PRAGMA data_version')
  const note = () => versions.add(Number(version.get()?.data_version))
  note()
  await Promise.all(Array.from({ length: 100 }, (_, n) => store.transact([], [{ put: `n/${n}`, value: n }]).then(note)))
  counter.close()
  assert.equal(versions.size, 2, 'before and after one commit')
  assert.equal((await other.list('n/')).length, 100)
})

test('one refused write does not touch those committed with it', async () => {
  await using here = await place()
  await using store = await openSqliteStore(here.path)
  const outcomes = await Promise.allSettled([
    store.transact([{ key: 'a', revision: 0 }], [{ put: 'a', value: 1 }]),
    store.transact(
      [{ key: 'a', revision: 0 }],
      [
        { put: 'b', value: 2 },
        { put: 'a', value: 2 },
      ],
    ),
    store.transact([], [{ put: 'c', value: 3 }]),
  ])
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled'],
  )
  assert.deepEqual(
    (await store.list('')).map(({ key, value }) => [key, value]),
    [
      ['a', 1],
      ['c', 3],
    ],
  )
})

test('many handles open a new file at the same time', async () => {
  await using here = await place()
  const stores = await Promise.all(Array.from({ length: 8 }, () => openSqliteStore(here.path)))
  await Promise.all(stores.map((store, n) => store.transact([], [{ put: `n/${n}`, value: n }])))
  assert.equal((await stores[0]?.list('n/'))?.length, 8)
  for (const store of stores) await store[Symbol.asyncDispose]()
})

test('only its owner may read the file', async () => {
  await using here = await place()
  await using store = await openSqliteStore(here.path)
  await store.transact([], [{ put: 'a', value: 1 }])
  for (const suffix of ['', '-wal', '-shm']) assert.equal((await stat(here.path + suffix)).mode & 0o777, 0o600)
})

test('a file that is no database is called damaged, with what to do', async () => {
  await using here = await place()
  await writeFile(here.path, 'these are not the bytes of a database. '.repeat(100))
  await assert.rejects(openSqliteStore(here.path), isDamaged)
})

test("another program's database is left alone", async () => {
  await using here = await place()
  const other = new DatabaseSync(here.path)
  other.exec('CREATE TABLE songs (title TEXT)')
  other.close()
  await assert.rejects(openSqliteStore(here.path), isDamaged)
  const again = new DatabaseSync(here.path)
  assert.deepEqual(
    again
      .prepare('SELECT name FROM sqlite_schema')
      .all()
      .map(({ name }) => name),
    ['songs'],
  )
  again.close()
})

test('a page overwritten in the middle is found when the store is opened', async () => {
  await using here = await place()
  {
    await using store = await openSqliteStore(here.path)
    await store.transact(
      [],
      Array.from({ length: 500 }, (_, n) => ({ put: `key/${n}`, value: 'x'.repeat(200) })),
    )
  }
  const file = await open(here.path, 'r+')
  const { size } = await file.stat()
  for (let at = 4096 * 4; at < size; at += 4096 * 3) await file.write(Buffer.alloc(64, 0xff), 0, 64, at)
  await file.close()
  await assert.rejects(openSqliteStore(here.path), isDamaged)
})

test('a store written by a newer version is refused, not changed', async () => {
  await using here = await place()
  await (await openSqliteStore(here.path))[Symbol.asyncDispose]()
  const newer = new DatabaseSync(here.path)
  newer.exec('PRAGMA user_version = 99')
  newer.close()
  await assert.rejects(openSqliteStore(here.path), /has format 99/)
})
