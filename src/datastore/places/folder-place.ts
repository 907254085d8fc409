/** A datastore in a folder of this machine, or one several machines mount. */
import { link, type FileHandle, mkdir, open, rename, rm, unlink } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { dirname, join, sep } from 'node:path'
import { KiB } from '#base/bytes.ts'
import { Fault, missing } from '#base/fault.ts'
import { systemClock } from '#base/clock.ts'
import type { Random } from '#base/random.ts'
import { asFileFault, codeOf, isDiskError, syncDirectory } from '#host/files.ts'
import { HeldFile } from './held-file.ts'
import { type Looks, LooksHere, looksElsewhere } from './looks.ts'
import { OpenFiles } from './open-files.ts'
import { checkName, type Hold, isName, type Place, type PlacedObject } from './place.ts'
import { readAhead } from '../window.ts'
import { leastReserveBytes, Reserve } from './reserve.ts'

/** Files asked for their size at once. */
const looksAtOnce = 16
const attempts = 4
/** Of a pack: nobody reads ahead as little as that. */
const smallBytes = 64 * KiB

export class FolderPlace implements Place {
  readonly label: string
  readonly stagingDir: string
  readonly reserve: Reserve
  readonly #files = new OpenFiles()

  readonly #random: Random
  readonly #looks: Looks

  /** @param isAlone of this process: nobody else wants anything of it, see `looks.ts` */
  constructor(root: string, random: Random, { isAlone = false }: { readonly isAlone?: boolean | undefined } = {}) {
    this.label = root
    this.#random = random
    this.#looks = isAlone ? new LooksHere() : looksElsewhere
    this.stagingDir = join(root, 'tmp')
    this.reserve = new Reserve(root, random)
  }

  /** Makes the folders. */
  async prepare(): Promise<void> {
    const folders = ['keys', 'packs', 'segments', 'backups', 'marks', 'leases', 'condemned', 'suspects', 'tmp']
    try {
      for (const folder of folders) await mkdir(join(this.label, folder), { recursive: true, mode: 0o700 })
      await this.reserve.keep(leastReserveBytes)
      await syncDirectory(this.label)
    } catch (cause) {
      throw asFileFault(cause, this.label)
    }
  }

  async putFile(name: string, path: string): Promise<boolean> {
    const target = this.#pathOf(name)
    try {
      if (existsSync(target)) {
        await rm(path, { force: true })
        return false
      }
      await mkdir(dirname(target), { recursive: true, mode: 0o700 })
      await rename(path, target)
      await makeDurable(dirname(target), this.label)
      return true
    } catch (cause) {
      throw asFileFault(cause, target)
    }
  }

  async replaceFile(name: string, path: string): Promise<void> {
    const target = this.#pathOf(name)
    try {
      await mkdir(dirname(target), { recursive: true, mode: 0o700 })
      await rename(path, target)
      this.#files.forget(target)
      await makeDurable(dirname(target), this.label)
    } catch (cause) {
      throw asFileFault(cause, target)
    }
  }

  put(name: string, content: Uint8Array): Promise<boolean> {
    return this.#place(name, content, async (staged, target) => {
      try {
        // A link, and not a rename: of two who come at the same moment one finds the name taken.
        await link(staged, target)
        return true
      } catch (cause) {
        if (codeOf(cause) === 'EEXIST') return false
        throw cause
      }
    })
  }

  async replace(name: string, content: Uint8Array): Promise<void> {
    await this.#place(name, content, async (staged, target) => {
      await rename(staged, target)
      return true
    })
  }

  async #place(
    name: string,
    content: Uint8Array,
    act: (staged: string, target: string) => Promise<boolean>,
  ): Promise<boolean> {
    const target = this.#pathOf(name)
    for (let attempt = 1; ; attempt += 1) {
      const staged = join(this.stagingDir, `small-${this.#random.uuid()}`)
      try {
        // First, as it says what is wrong where nothing can be written: `mkdir` says that the folder does not exist.
        await writeSynced(staged, content)
        await mkdir(dirname(target), { recursive: true, mode: 0o700 })
        const isPlaced = await act(staged, target)
        if (isPlaced) await makeDurable(dirname(target), this.label)
        return isPlaced
      } catch (cause) {
        // Taken for a leftover by whoever tidies up.
        if (codeOf(cause) !== 'ENOENT' || attempt === attempts) throw asFileFault(cause, target)
      } finally {
        await rm(staged, { force: true })
      }
    }
  }

  async get(name: string, maximumBytes: number): Promise<Buffer | undefined> {
    const path = this.#pathOf(name)
    try {
      return await this.#looks.whole(path, maximumBytes)
    } catch (cause) {
      if (codeOf(cause) === 'ENOENT' || codeOf(cause) === 'ENOTDIR') return undefined
      throw asReadFault(cause, path)
    }
  }

  async read(name: string, offset: number, length: number, room?: Buffer): Promise<Buffer> {
    const path = this.#pathOf(name)
    const bytes = room && room.length >= length ? room.subarray(0, length) : Buffer.allocUnsafe(length)
    // Of packs several large parts are read at a time.
    const looks = length <= smallBytes || name.startsWith('segments/') ? this.#looks : looksElsewhere
    const work = (file: FileHandle) => readFully(looks, file, { offset, into: bytes, path })
    try {
      if (!isLasting(name)) return await once(path, work)
      return (
        (room && (await this.#files.readDirect(path, offset, length, room))) ?? (await this.#files.during(path, work))
      )
    } catch (cause) {
      throw codeOf(cause) === 'ENOENT' ? missing('object', name) : asReadFault(cause, path)
    }
  }

  async sizeOf(name: string): Promise<number> {
    const path = this.#pathOf(name)
    const facts = await this.#looks.facts(path).catch((cause: unknown) => {
      throw codeOf(cause) === 'ENOENT' ? missing('object', name) : asReadFault(cause, path)
    })
    await this.#files.forgetOther(path, facts.ino)
    return facts.size
  }

  list(folder: string): AsyncIterable<PlacedObject> {
    return walk(this.#looks, this.label, folder.replace(/\/$/, ''))
  }

  async remove(name: string): Promise<boolean> {
    const path = this.#pathOf(name)
    try {
      await unlink(path)
      this.#files.forget(path)
      return true
    } catch (cause) {
      if (codeOf(cause) === 'ENOENT') return false
      throw asFileFault(cause, path)
    }
  }

  hold(name: string): Promise<Hold> {
    const path = this.#pathOf(name)
    // Whoever looks whether it is held holds it for that moment.
    return HeldFile.hold(path, 'the mark of a lease', { timeoutMs: 5_000, clock: systemClock })
  }

  isHeld(name: string): boolean | undefined {
    const path = this.#pathOf(name)
    // Of somebody elsewhere, who reaches the folder through a server.
    if (!existsSync(path)) return undefined
    using free = HeldFile.tryHold(path)
    return free === undefined
  }

  async removeFree(name: string, isWanted: () => Promise<boolean>): Promise<void> {
    const path = this.#pathOf(name)
    if (!existsSync(path)) return
    using held = HeldFile.tryHold(path)
    // Held meanwhile, so nobody begins to rely on what is about to go.
    if (held && !(await isWanted())) await rm(path, { force: true })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#files.closeAll()
  }

  #pathOf(name: string): string {
    // Nothing to be made normal: `join` would take longer than to open the file.
    return `${this.label}/${checkName(name)}`
  }
}

/** What a disk does not give out any more is damaged, and that alone: everything else can be read. */
function asReadFault(cause: unknown, path: string): unknown {
  if (!isDiskError(cause)) return asFileFault(cause, path)
  return new Fault('damaged', `'${path}' cannot be read: its disk reports an error`, {
    cause,
    remedy: 'Look at the disk, and at what the kernel says of it: dmesg.',
  })
}

async function writeSynced(path: string, content: Uint8Array): Promise<void> {
  await using file = await open(path, 'wx', 0o600)
  await file.writeFile(content)
  await file.datasync()
}

async function* walk(looks: Looks, root: string, folder: string): AsyncGenerator<PlacedObject> {
  const path = join(root, folder)
  const folders: string[] = []
  const files: string[] = []
  try {
    for (const entry of await looks.entries(path)) {
      const name = `${folder}/${entry.name}`
      if (entry.isDirectory()) folders.push(name)
      // What is written in one act has a name with a dot in front until it is there.
      else if (entry.isFile() && !entry.name.startsWith('.') && isName(name)) files.push(name)
    }
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT' || codeOf(cause) === 'ENOTDIR') return
    throw asFileFault(cause, path)
  }
  const lookedAt = (name: string) => placed(looks, root, name)
  for await (const found of readAhead(files, looksAtOnce, lookedAt)) if (found) yield found
  for (const name of folders) yield* walk(looks, root, name)
}

/** Nothing for what was removed while we listed. What cannot be looked at is there all the same: nobody may take it for gone. */
async function placed(looks: Looks, root: string, file: string): Promise<PlacedObject | undefined> {
  const path = `${root}/${file}`
  const name = file.replaceAll(sep, '/')
  try {
    const { size, ino, mtimeMs, ctimeMs } = await looks.facts(path)
    return { name, sizeBytes: size, version: `${ino} ${mtimeMs} ${ctimeMs}` }
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return undefined
    if (isDiskError(cause)) return { name, sizeBytes: 0 }
    throw asFileFault(cause, path)
  }
}

/** Every folder on the way down is there after power loss, too. */
async function makeDurable(path: string, root: string): Promise<void> {
  for (let at = path; at.startsWith(root); at = dirname(at)) await syncDirectory(at)
}

interface Part {
  readonly offset: number
  readonly into: Buffer
  readonly path: string
}

/** @throws Fault `damaged` when the file ends before `into` is full */
async function readFully(looks: Looks, file: FileHandle, { offset, into, path }: Part): Promise<Buffer> {
  for (let done = 0; done < into.length;) {
    const more = await looks.part(file, into, done, offset + done)
    if (more === 0) throw new Fault('damaged', `'${path}' ends ${into.length - done} bytes early`)
    done += more
  }
  return into
}

/** What has the name of its hash is never another; all else can be replaced at any moment, by others as well. */
function isLasting(name: string): boolean {
  return name.startsWith('packs/') || name.startsWith('segments/')
}

async function once<T>(path: string, work: (file: FileHandle) => Promise<T>): Promise<T> {
  await using file = await open(path, 'r')
  return await work(file)
}
