/** A datastore in a folder of this machine, or one several machines mount. */
import { link, type FileHandle, mkdir, open, opendir, readFile, rename, rm, stat, unlink } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { dirname, join, sep } from 'node:path'
import { Fault, missing } from '#base/fault.ts'
import { systemClock } from '#base/clock.ts'
import type { Random } from '#base/random.ts'
import { asFileFault, codeOf, isDiskError, syncDirectory } from '#host/files.ts'
import { HeldFile } from './held-file.ts'
import { OpenFiles } from './open-files.ts'
import { checkName, type Hold, isName, type Place, type PlacedObject } from './place.ts'
import { readAhead } from '../window.ts'
import { leastReserveBytes, Reserve } from './reserve.ts'

/** Files asked for their size at once. */
const looksAtOnce = 16
const attempts = 4

export class FolderPlace implements Place {
  readonly label: string
  readonly stagingDir: string
  readonly reserve: Reserve
  readonly #files = new OpenFiles()

  readonly #random: Random

  constructor(root: string, random: Random) {
    this.label = root
    this.#random = random
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
        await mkdir(dirname(target), { recursive: true, mode: 0o700 })
        await writeSynced(staged, content)
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
      const { size } = await stat(path)
      if (size > maximumBytes) throw new Fault('too-large', `'${path}' has ${size} bytes, too many`)
      // In one act: a file that is opened, read and closed by itself takes three times as much.
      return await readFile(path)
    } catch (cause) {
      if (codeOf(cause) === 'ENOENT' || codeOf(cause) === 'ENOTDIR') return undefined
      throw asReadFault(cause, path)
    }
  }

  async read(name: string, offset: number, length: number, room?: Buffer): Promise<Buffer> {
    const path = this.#pathOf(name)
    const bytes = room && room.length >= length ? room.subarray(0, length) : Buffer.allocUnsafe(length)
    const work = (file: FileHandle) => readFully(file, offset, bytes, path)
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
    const facts = await stat(path).catch((cause: unknown) => {
      throw codeOf(cause) === 'ENOENT' ? missing('object', name) : asReadFault(cause, path)
    })
    await this.#files.forgetOther(path, facts.ino)
    return facts.size
  }

  list(folder: string): AsyncIterable<PlacedObject> {
    return walk(this.label, folder.replace(/\/$/, ''))
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

async function* walk(root: string, folder: string): AsyncGenerator<PlacedObject> {
  const path = join(root, folder)
  let entries
  try {
    entries = await opendir(path)
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT' || codeOf(cause) === 'ENOTDIR') return
    throw asFileFault(cause, path)
  }
  const folders: string[] = []
  const files: string[] = []
  try {
    for await (const entry of entries) {
      const name = `${folder}/${entry.name}`
      if (entry.isDirectory()) folders.push(name)
      // What is written in one act has a name with a dot in front until it is there.
      else if (entry.isFile() && !entry.name.startsWith('.') && isName(name)) files.push(name)
    }
  } catch (cause) {
    throw asFileFault(cause, path)
  }
  for await (const found of readAhead(files, looksAtOnce, (name) => lookedAt(root, name))) if (found) yield found
  for (const name of folders) yield* walk(root, name)
}

/** Nothing for what was removed while we listed. What cannot be looked at is there all the same: nobody may take it for gone. */
async function lookedAt(root: string, name: string): Promise<PlacedObject | undefined> {
  const path = `${root}/${name}`
  const placed = name.replaceAll(sep, '/')
  try {
    const { size, ino, mtimeMs, ctimeMs } = await stat(path)
    return { name: placed, sizeBytes: size, version: `${ino} ${mtimeMs} ${ctimeMs}` }
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return undefined
    if (isDiskError(cause)) return { name: placed, sizeBytes: 0 }
    throw asFileFault(cause, path)
  }
}

/** Every folder on the way down is there after power loss, too. */
async function makeDurable(path: string, root: string): Promise<void> {
  for (let at = path; at.startsWith(root); at = dirname(at)) await syncDirectory(at)
}

/** @throws Fault `damaged` when the file ends before `into` is full */
async function readFully(file: FileHandle, offset: number, into: Buffer, path: string): Promise<Buffer> {
  for (let done = 0; done < into.length;) {
    const { bytesRead } = await file.read(into, done, into.length - done, offset + done)
    if (bytesRead === 0) throw new Fault('damaged', `'${path}' ends ${into.length - done} bytes early`)
    done += bytesRead
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
