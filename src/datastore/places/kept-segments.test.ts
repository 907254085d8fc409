/** Copies of parts of the index: they spare the way, and are believed in nothing. */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, truncate, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Fault, isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { KeptSegments } from './kept-segments.ts'

/** Somewhere else, that counts what is fetched from there. */
class Elsewhere {
  readonly contents = new Map<string, Buffer>()
  fetches = 0

  put(content: Buffer): string {
    const name = `segments/${createHash('sha256').update(content).digest('hex')}`
    this.contents.set(name, content)
    return name
  }

  sizeOf = async (name: string) => this.#of(name).length

  read = async (name: string, offset: number, length: number) => {
    this.fetches += 1
    return this.#of(name).subarray(offset, offset + length)
  }

  #of(name: string): Buffer {
    const content = this.contents.get(name)
    if (!content) throw new Fault('missing', `'${name}' is not there`)
    return content
  }
}

interface World {
  readonly elsewhere: Elsewhere
  readonly home: string
  /** As another process would. */
  readonly opened: (options?: { readonly maximumBytes?: number; readonly home?: string }) => KeptSegments
}

async function inWorld(act: (world: World) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'hako-kept-'))
  try {
    const [home, staging, elsewhere] = [join(folder, 'cache', 'segments'), join(folder, 'staging'), new Elsewhere()]
    await mkdir(staging)
    await act({
      elsewhere,
      home,
      opened: (options = {}) => new KeptSegments({ staging, home, elsewhere, random: systemRandom, ...options }),
    })
  } finally {
    await rm(folder, { recursive: true })
  }
}

const [before, after] = [randomBytes(5_000), randomBytes(7_000)]

async function isRead(segments: KeptSegments, name: string, content: Buffer): Promise<void> {
  assert.equal(await segments.sizeOf(name), content.length)
  assert.ok((await segments.read(name, 100, 50)).equals(content.subarray(100, 150)))
}

test('what one process fetched, or put there itself, the next one has', async () => {
  await inWorld(async ({ elsewhere, home, opened }) => {
    const [name, own] = [elsewhere.put(before), elsewhere.put(after)]
    {
      await using segments = opened()
      await isRead(segments, name, before)
      await writeFile(join(home, '..', 'written'), after)
      await segments.adopt(own, join(home, '..', 'written'))
    }
    assert.equal(elsewhere.fetches, 1)
    await using segments = opened()
    await isRead(segments, name, before)
    await isRead(segments, own, after)
    assert.equal(elsewhere.fetches, 1)
    assert.deepEqual((await readdir(home)).toSorted(), [name, own].map((one) => one.slice(-64)).toSorted())
  })
})

test('a copy that is not what it was is fetched anew', async () => {
  await inWorld(async ({ elsewhere, home, opened }) => {
    const name = elsewhere.put(before)
    const path = join(home, name.slice(-64))
    const spoil = [
      () => truncate(path, 3_000),
      () => truncate(path, 0),
      () => writeFile(path, Buffer.concat([before, Buffer.alloc(1)])),
      async () => {
        const content = await readFile(path)
        content.writeUInt8(content.readUInt8(4_000) ^ 4, 4_000)
        await writeFile(path, content)
      },
    ]
    for (const [round, act] of [async () => {}, ...spoil].entries()) {
      if (round > 0) await act()
      await using segments = opened()
      await isRead(segments, name, before)
      assert.equal(elsewhere.fetches, round + 1)
      assert.ok((await readFile(path)).equals(before))
    }
  })
})

test('what a copy has says nothing of the place: that is looked at where somebody asks for it', async () => {
  await inWorld(async ({ elsewhere, opened }) => {
    const name = elsewhere.put(before)
    {
      await using first = opened()
      await first.requireWhole(name)
      assert.equal(elsewhere.fetches, 1, 'what was fetched by us just now was looked at')
    }
    const damaged = Buffer.from(before)
    damaged.writeUInt8(damaged.readUInt8(9) ^ 1, 9)
    elsewhere.contents.set(name, damaged)
    await using segments = opened()
    await assert.rejects(segments.requireWhole(name), (fault) => isFault(fault, 'damaged'))
    await isRead(segments, name, before)
    elsewhere.contents.delete(name)
    await assert.rejects(segments.requireWhole(name), (fault) => isFault(fault, 'missing'))
  })
})

test('what nobody used for longest goes when there is too much, and what is in use is read on', async () => {
  await inWorld(async ({ elsewhere, home, opened }) => {
    const contents = Array.from({ length: 4 }, () => randomBytes(1_000))
    const names = contents.map((content) => elsewhere.put(content))
    const [one = '', two = '', three = '', four = ''] = names
    const nameOf = (name: string) => name.slice(-64)
    for (const name of [one, two]) {
      await using segments = opened()
      await segments.sizeOf(name)
    }
    await utimes(join(home, nameOf(one)), 1, 1)
    await writeFile(join(home, 'somebody-elses'), randomBytes(5_000))
    await using user = opened()
    await isRead(user, two, contents[1] ?? before)
    await utimes(join(home, nameOf(two)), 2, 2)
    const dead = `${nameOf(one)}.${systemRandom.uuid()}.part`
    await writeFile(join(home, dead), 'half')
    await utimes(join(home, dead), 1, 1)
    await using segments = opened({ maximumBytes: 2_500 })
    await isRead(segments, three, contents[2] ?? before)
    assert.deepEqual((await readdir(home)).toSorted(), [nameOf(two), nameOf(three), 'somebody-elses'].toSorted())
    await isRead(segments, four, contents[3] ?? before)
    assert.deepEqual((await readdir(home)).toSorted(), [nameOf(three), nameOf(four), 'somebody-elses'].toSorted())
    await isRead(user, two, contents[1] ?? before)
    // All is ours: what comes last does not stay, and is read all the same.
    await isRead(segments, one, contents[0] ?? before)
    assert.deepEqual((await readdir(home)).toSorted(), [nameOf(three), nameOf(four), 'somebody-elses'].toSorted())
  })
})

test('many at the same moment, in one folder, all read what is there, and leave one copy of it', async () => {
  await inWorld(async ({ elsewhere, home, opened }) => {
    const names = [elsewhere.put(before), elsewhere.put(after)]
    await using scope = new AsyncDisposableStack()
    const many = Array.from({ length: 16 }, () => scope.use(opened({ maximumBytes: 8_000 })))
    await Promise.all(many.flatMap((one) => [isRead(one, names[0] ?? '', before), isRead(one, names[1] ?? '', after)]))
    assert.ok((await readdir(home)).length <= 2)
  })
})

test('a folder that cannot be used, or others may write to, is not: then copies go with the process', async () => {
  await inWorld(async ({ elsewhere, home, opened }) => {
    const name = elsewhere.put(before)
    await mkdir(home, { recursive: true })
    await chmod(home, 0o777)
    for (const unfit of [home, '/dev/null/segments', '/dev/null']) {
      await using segments = opened({ home: unfit })
      await isRead(segments, name, before)
    }
    assert.deepEqual(await readdir(home), [])
  })
})
