/**
 * Writes a tree of a backup into an empty folder: every chunk checked, with all a file system keeps of files.
 *
 * The catalogue is not trusted. Names are single names, checked when their piece was read; each folder on the way is
 * opened from the one above it, and never through a link, so nothing outside of the target can be reached; nothing that
 * is there is written to, so an entry that is told twice is damage. Modes, times and lists of folders come last, when
 * nothing is put into them any more. When this throws, the target holds some of the tree; whoever made it removes it.
 */
import { closeSync, constants, fchmodSync, ftruncateSync, readdirSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { systemClock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { keptRate } from '#base/kept-rate.ts'
import { type FileOrName, writeAttribute } from '#host/files/attribute-calls.ts'
import { asFileFault, codeOf } from '#host/files.ts'
import {
  createFile,
  giveTo,
  makeFolder,
  makeHardLink,
  makeLink,
  makeNode,
  setMode,
  setTimes,
} from '#host/files/folder-calls.ts'
import { type IdMap, type IdRange, outsideId } from '#host/lxc/id-map.ts'
import { damagedTree } from './catalogue.ts'
import { type IdShift, outward, shiftAttribute } from './inside-ids.ts'
import { OpenFolders } from './open-folders.ts'
import { textOf, type TreeEntry, type TreeHolder, type TreeReader } from './reader.ts'
import { at } from './record.ts'

export interface RestoreTreeProgress {
  readonly tree: string
  readonly entries: number
  readonly writtenBytes: number
  /** 0 to 1, of content and entries together. */
  readonly fraction: number
}

export interface RestoreTreeOptions {
  /** An empty folder of root's that nobody else can write to. It becomes the root of the tree. */
  readonly target: string
  /** Of an unprivileged container. Devices are then left out, as nobody but root of the node may make them. */
  readonly idMap?: IdMap | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: (progress: RestoreTreeProgress) => void
  /** Upper bound of what is written. */
  readonly rateBytesPerSecond?: number | undefined
}

export interface RestoredTree {
  readonly entries: number
  readonly files: number
  readonly writtenBytes: number
  /** Devices that were not let in, and further names of them. */
  readonly leftOut: number
  /** Extended attributes the file system did not take, or that are the node's own matter. */
  readonly attributesLeftOut: number
  /** Rights given in access lists to ids the map does not have: they are nobody's now. */
  readonly foreignIds: number
}

const turnEveryMs = 25
/** Of names of devices that were left out, to tell a further name of one from damage. */
const leftOutMaximum = 10_000

/**
 * @throws Fault `damaged` naming the chunk or the entry, `invalid` when the map does not reach as far as the tree's ids,
 *   `conflict` when the target is not empty, `exhausted` when it is full, `aborted`
 */
export async function restoreTree(
  reader: TreeHolder,
  name: string,
  options: RestoreTreeOptions,
): Promise<RestoredTree> {
  const tree = reader.tree(name)
  requireIds(tree, options.idMap)
  await tree.requireDigest()
  const isThere = requireEmpty(options.target)
  using folders = new OpenFolders(options.target)
  const restore = new TreeRestore(tree, folders, options, isThere)
  try {
    return await restore.run()
  } catch (cause) {
    throw cause instanceof Fault ? cause : asFileFault(cause, options.target)
  }
}

/** Said before anything is made. */
function requireIds(tree: TreeReader, idMap: IdMap | undefined): void {
  if (idMap === undefined) return
  const { highestUid, highestGid, name } = tree.facts
  const needed: [IdRange['kind'], number][] = [
    ['uid', 0],
    ['gid', 0],
    ['uid', highestUid],
    ['gid', highestGid],
  ]
  for (const [kind, id] of needed) {
    if (outsideId(idMap, kind, id) === undefined) {
      throw new Fault(
        'invalid',
        `${name} has files of ${kind} ${id}, which the id map of the container does not have`,
        {
          remedy: 'Restore it as a privileged container, or with a larger id map.',
        },
      )
    }
  }
}

/** What is in it all the same: a file system of its own has this folder from the start. */
function requireEmpty(target: string): readonly string[] {
  try {
    const names = readdirSync(target)
    if (names.every((name) => name === 'lost+found')) return names
  } catch (cause) {
    throw asFileFault(cause, target)
  }
  throw new Fault('conflict', `'${target}' is not empty`)
}

class TreeRestore {
  readonly #tree: TreeReader
  readonly #folders: OpenFolders
  readonly #options: RestoreTreeOptions
  readonly #shift: IdShift | undefined
  readonly #counts = { entries: 0, files: 0, writtenBytes: 0, leftOut: 0, attributesLeftOut: 0, foreignIds: 0 }
  readonly #leftOut = new Set<string>()
  readonly #isThere: readonly string[]
  readonly #keepRate: (allBytes: number) => Promise<void>
  #turnMs = systemClock.monotonic()

  constructor(tree: TreeReader, folders: OpenFolders, options: RestoreTreeOptions, isThere: readonly string[]) {
    this.#tree = tree
    this.#folders = folders
    this.#options = options
    this.#keepRate = keptRate(options.rateBytesPerSecond, { signal: options.signal })
    this.#isThere = isThere
    this.#shift = outward(options.idMap)
  }

  async run(): Promise<RestoredTree> {
    for await (const entry of this.#tree.entries()) {
      this.#counts.entries += 1
      if (entry.path !== '') await this.#make(entry)
      if (systemClock.monotonic() - this.#turnMs > turnEveryMs) await this.#turn()
    }
    // Once more, for what would not last, or stand in the way, while a folder is being filled.
    for await (const entry of this.#tree.entries()) {
      if (entry.kind === 'directory') await this.#finishFolder(entry)
      if (systemClock.monotonic() - this.#turnMs > turnEveryMs) await this.#turn()
    }
    if (this.#counts.entries !== this.#tree.facts.entries) {
      throw damagedTree(this.#tree.name, `it has ${this.#counts.entries} of ${this.#tree.facts.entries} entries`)
    }
    await this.#turn()
    return { ...this.#counts }
  }

  async #make(entry: TreeEntry): Promise<void> {
    const folder = this.#folderOf(entry)
    try {
      await this.#makeIn(folder, entry)
    } catch (cause) {
      if (['EEXIST', 'ENOTDIR'].includes(codeOf(cause) ?? '')) throw this.#damaged(entry, 'it is there twice', cause)
      throw cause
    }
  }

  async #makeIn(folder: number, entry: TreeEntry): Promise<void> {
    const { name, target = '', device = { major: 0, minor: 0 } } = entry
    switch (entry.kind) {
      case 'directory':
        if (!this.#isThere.includes(entry.path)) makeFolder(folder, name)
        return
      case 'file':
        return this.#makeFile(folder, entry)
      case 'hard link':
        return this.#makeHardLink(folder, entry)
      case 'symbolic link':
        makeLink(folder, name, target)
        break
      case 'pipe':
        makeNode(folder, name, constants.S_IFIFO | 0o600, 0, 0)
        break
      case 'socket':
        makeNode(folder, name, constants.S_IFSOCK | 0o600, 0, 0)
        break
      case 'character device':
      case 'block device': {
        if (!this.#isLetIn(entry)) return
        const type = entry.kind === 'block device' ? constants.S_IFBLK : constants.S_IFCHR
        makeNode(folder, name, type | 0o600, device.major, device.minor)
        break
      }
    }
    await this.#finish(entry, { folder, name })
  }

  /** A character device of the number 0 is none: file systems in layers mark with it what was removed. */
  #isLetIn({ kind, device, path }: TreeEntry): boolean {
    const isMark = kind === 'character device' && device?.major === 0 && device.minor === 0
    if (this.#options.idMap === undefined || isMark) return true
    this.#counts.leftOut += 1
    if (this.#leftOut.size < leftOutMaximum) this.#leftOut.add(path)
    return false
  }

  async #makeFile(folder: number, entry: TreeEntry): Promise<void> {
    const fd = createFile(folder, entry.name)
    try {
      let end = 0
      for await (const { offset, bytes } of this.#tree.parts(entry)) {
        writeAll(fd, bytes, offset)
        end = offset + bytes.length
        this.#counts.writtenBytes += bytes.length
        if (systemClock.monotonic() - this.#turnMs > turnEveryMs) await this.#turn()
      }
      if (end < entry.sizeBytes) ftruncateSync(fd, entry.sizeBytes)
      await this.#finish(entry, fd)
    } catch (cause) {
      throw asFileFault(cause, join(this.#options.target, textOf(entry.path)))
    } finally {
      closeSync(fd)
    }
    this.#counts.files += 1
  }

  #makeHardLink(folder: number, entry: TreeEntry): void {
    const { target = '', name } = entry
    if (this.#leftOut.has(target)) {
      this.#counts.leftOut += 1
      return
    }
    const slash = target.lastIndexOf('/')
    using first = this.#folders.openApart(target.slice(0, Math.max(0, slash)))
    if (first === undefined) throw this.#damaged(entry, `it is one with '${textOf(target)}', which is not there`)
    try {
      makeHardLink(first.fd, target.slice(slash + 1), folder, name)
    } catch (cause) {
      if (!['ENOENT', 'EPERM'].includes(codeOf(cause) ?? '')) throw cause
      throw this.#damaged(entry, `it is one with '${textOf(target)}', which is not there`, cause)
    }
  }

  async #finishFolder(entry: TreeEntry): Promise<void> {
    if (entry.path === '') {
      const fd = this.#folders.open('') ?? -1
      await this.#finish(entry, fd)
      return
    }
    await this.#finish(entry, { folder: this.#folderOf(entry), name: entry.name })
  }

  /** Owner first, as that takes rights away; then lists and capabilities, mode, and times last. */
  async #finish(entry: TreeEntry, of: FileOrName): Promise<void> {
    const { uid, gid, kind, mode, place } = entry
    const [folder, name] = typeof of === 'number' ? [of, ''] : [of.folder, of.name]
    giveTo(folder, name, this.#outside(entry, 'uid', uid), this.#outside(entry, 'gid', gid))
    for (const attribute of await this.#tree.attributes(entry)) {
      const shifted = this.#shift ? shiftAttribute(attribute, this.#shift) : { value: attribute, foreign: 0 }
      if (shifted.value) this.#counts.foreignIds += shifted.foreign
      const isSet = shifted.value && this.#mayBeSet(attribute.name) && writeAttribute(of, shifted.value)
      if (!isSet) this.#counts.attributesLeftOut += 1
    }
    if (kind !== 'symbolic link') {
      if (name === '') fchmodSync(folder, mode)
      else setMode(folder, name, mode)
    }
    const { bytes } = place.piece.piece
    setTimes(folder, name, bytes.subarray(place.at + at.modified, place.at + at.modified + 12))
  }

  /** `trusted` is how the node's kernel and its overlays talk to each other; no container may write it. */
  #mayBeSet(name: string): boolean {
    if (this.#options.idMap === undefined) return !name.startsWith('trusted.overlay.')
    return name.startsWith('user.') || name.startsWith('system.posix_acl_') || name === 'security.capability'
  }

  #outside(entry: TreeEntry, kind: IdRange['kind'], id: number): number {
    const outside = this.#shift ? this.#shift.idOf(kind, id) : id
    if (outside !== undefined) return outside
    throw this.#damaged(entry, `it belongs to ${kind} ${id}, beyond those the tree is said to have`)
  }

  /** The folder an entry is in: it was made before, by this restore. */
  #folderOf(entry: TreeEntry): number {
    const slash = entry.path.lastIndexOf('/')
    const folder = this.#folders.open(entry.path.slice(0, Math.max(0, slash)))
    if (folder === undefined) throw this.#damaged(entry, 'it is in no folder')
    return folder
  }

  async #turn(): Promise<void> {
    const { signal, onProgress } = this.#options
    const { facts } = this.#tree
    if (signal?.aborted) throw new Fault('aborted', `the restore of ${facts.name} was interrupted`)
    const { entries, writtenBytes } = this.#counts
    // An entry weighs as much as a few KiB of content do.
    const [done, all] = [entries * 8_192 + writtenBytes, facts.entries * 8_192 + facts.dataBytes]
    onProgress?.({ tree: facts.name, entries, writtenBytes, fraction: Math.min(1, done / Math.max(1, all)) })
    await this.#keepRate(writtenBytes)
    await nextTurn()
    this.#turnMs = systemClock.monotonic()
  }

  #damaged({ path }: TreeEntry, how: string, cause?: unknown): Fault {
    return damagedTree(this.#tree.name, `'${textOf(path)}': ${how}`, cause)
  }
}

function writeAll(fd: number, bytes: Buffer, offset: number): void {
  let done = 0
  while (done < bytes.length) done += writeSync(fd, bytes, done, bytes.length - done, offset + done)
}
