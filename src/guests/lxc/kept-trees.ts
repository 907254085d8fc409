/**
 * Templates that are used again and again are kept unpacked, and copied: that is half of the work and a quarter of the
 * processor time of unpacking, and where the file system shares blocks between files, no room either.
 *
 * A tree is kept when its template is used a second time, so one that is used once costs nothing. It is kept in two
 * halves, which two programs copy at once into the folders both have (`tree-halves.ts`). It becomes visible by one
 * rename after it is on disk, and is known by what the kernel says of the archive: another file, or the same with
 * another content, is another template. Few are kept, those used last; and none of this is needed: whatever goes wrong
 * with a kept tree, the archive is unpacked.
 *
 * Who may run beside whom: any number. Of two that keep the same tree the later one drops its own; one that copies
 * while its tree is removed unpacks the archive instead.
 */
import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rename, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { GiB } from '#base/bytes.ts'
import type { Clock } from '#base/clock.ts'
import { messageOf } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import type { Random } from '#base/random.ts'
import { codeOf, freeBytes, makeDirectory } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { emptyTree, removeTree } from '#host/files/remove-tree.ts'
import { keepNext, takeNext, wantedMs } from './next-tree.ts'
import { copyHalves, keepHalves } from './tree-halves.ts'
import { type Unpacked, type UnpackTemplate, unpackTemplate } from './unpack.ts'

export interface KeptTreesNeeds {
  readonly host: Host
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** Of its own. On the file system of the containers blocks can be shared. */
  readonly directory: string
}

/** How many trees are kept, and for how long after they were used. */
const mostKept = 4
const keptMs = 30 * 24 * 60 * 60_000
/** Larger ones are rare, and unpacked. */
const [mostBytes, mostEntries] = [4 * GiB, 200_000]
/** Of what is free, a kept tree takes no more than this part. */
const partOfFree = 0.1
/** Nobody is still making one that was begun this long ago. */
const makingMs = 6 * 60 * 60_000
const [used, making] = ['.used', '.making-']
const factsFile = 'facts.json'

export class KeptTrees {
  readonly #needs: KeptTreesNeeds

  constructor(needs: KeptTreesNeeds) {
    this.#needs = needs
  }

  /** As `unpackTemplate`, from the kept tree where there is one. */
  async fill(wish: UnpackTemplate): Promise<Unpacked> {
    const key = await keyOf(wish)
    const known = key === undefined ? undefined : await this.#copied(key, wish)
    if (known) return known
    const unpacked = await unpackTemplate(wish)
    if (key !== undefined) await this.#keep(key, wish, unpacked).catch((cause: unknown) => this.#warn('keep', cause))
    return unpacked
  }

  /** Makes the next copy of the tree that was used last, unless that was long ago. For one process of the node. */
  async lookAhead(signal: AbortSignal): Promise<void> {
    const { directory, host } = this.#needs
    const ages = await this.#ages()
    if (ages.length === 0) return
    const [last] = ages.filter(isKept).toSorted((a, b) => a.age - b.age)
    const facts = last && last.age < wantedMs ? await readFacts(join(directory, last.name)) : undefined
    await keepNext(host, directory, last && facts && { key: last.name, bytes: facts.bytes }, signal)
  }

  #warn(verb: string, cause: unknown): void {
    this.#needs.log.warn(`a template's tree was not used: it could not be ${verb}`, { why: messageOf(cause) })
  }

  async #copied(key: string, { rootfs, signal, onProgress }: UnpackTemplate): Promise<Unpacked | undefined> {
    const place = join(this.#needs.directory, key)
    const facts = await readFacts(place)
    if (!facts) return undefined
    try {
      await this.#touch(place)
      if (!(await takeNext(this.#needs.directory, key, rootfs))) {
        await copyHalves(this.#needs.host, place, rootfs, { signal })
      }
      onProgress?.({ fraction: 1, entries: facts.entries, bytes: facts.bytes })
      return facts
    } catch (cause) {
      signal?.throwIfAborted()
      this.#warn('copied', cause)
      await emptyTree(this.#needs.host, rootfs)
      return undefined
    }
  }

  /** Before anything is changed in the tree that was unpacked. */
  async #keep(key: string, { rootfs }: UnpackTemplate, unpacked: Unpacked): Promise<void> {
    const { directory, host, random } = this.#needs
    await makeDirectory(directory, 0o700)
    if (!(await this.#isUsedAgain(key)) || !(await this.#hasRoom(unpacked))) return
    const place = join(directory, making + random.uuid())
    try {
      await mkdir(place, { mode: 0o700 })
      await keepHalves(host, rootfs, place)
      await writeFile(join(place, factsFile), JSON.stringify(unpacked))
      // A rename survives a loss of power sooner than the content of files does.
      await host.run(['sync', '--file-system', place], { timeoutMs: makingMs })
      await rename(place, join(directory, key))
    } finally {
      await removeTree(host, place)
    }
    await this.#sweep()
  }

  async #isUsedAgain(key: string): Promise<boolean> {
    const mark = join(this.#needs.directory, key + used)
    try {
      await writeFile(mark, '', { flag: 'wx' })
      return false
    } catch (cause) {
      if (codeOf(cause) !== 'EEXIST') throw cause
      return true
    }
  }

  async #hasRoom({ bytes, entries }: Unpacked): Promise<boolean> {
    return bytes <= mostBytes && entries <= mostEntries && bytes < (await freeBytes(this.#needs.directory)) * partOfFree
  }

  async #touch(place: string): Promise<void> {
    const now = new Date(this.#needs.clock.now())
    await utimes(place, now, now)
  }

  /** Everything there, with how long ago it was used. */
  async #ages(): Promise<Aged[]> {
    const { clock, directory } = this.#needs
    const names = await readdir(directory).catch((): string[] => [])
    return Promise.all(names.map(async (name) => ({ name, age: await ageOf(join(directory, name), clock) })))
  }

  /** Removes what nobody has used for long, or what others were used after; and what makers that died left. */
  async #sweep(): Promise<void> {
    const { directory, host } = this.#needs
    const ages = await this.#ages()
    const gone = [
      ...ages
        .filter(isKept)
        .toSorted((a, b) => a.age - b.age)
        .filter(({ age }, at) => at >= mostKept || age > keptMs),
      ...ages.filter(({ name, age }) => name.startsWith(making) && age > makingMs),
      ...ages.filter(({ name, age }) => name.endsWith(used) && age > keptMs),
    ]
    for (const { name } of gone) {
      // Aside first: a tree with a part missing must not look like a whole one.
      const aside = join(directory, `${making}${name}`)
      await rename(join(directory, name), aside).catch(() => {})
      await removeTree(host, aside)
    }
  }
}

interface Aged {
  readonly name: string
  /** Milliseconds. */
  readonly age: number
}

function isKept({ name }: Aged): boolean {
  return !name.startsWith('.') && !name.endsWith(used)
}

/** What tells this archive, with this map, from every other; nothing when there is no such file. */
async function keyOf({ archive, idMap = [], keepsDevices = false }: UnpackTemplate): Promise<string | undefined> {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(archive, { bigint: true })
    const facts = [1, dev, ino, size, mtimeNs, ctimeNs, JSON.stringify(idMap), keepsDevices]
    return createHash('sha256').update(facts.join(' ')).digest('hex').slice(0, 32)
  } catch {
    // Whoever unpacks it says what is wrong with it.
    return undefined
  }
}

async function readFacts(place: string): Promise<Unpacked | undefined> {
  try {
    const { entries, bytes, leftOut } = JSON.parse(await readFile(join(place, factsFile), 'utf8')) as Unpacked
    return { entries, bytes, leftOut }
  } catch {
    return undefined
  }
}

async function ageOf(path: string, clock: Clock): Promise<number> {
  return stat(path).then(
    ({ mtimeMs }) => clock.now() - mtimeMs,
    () => 0,
  )
}
