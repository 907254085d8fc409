/**
 * A folder on the node as the source of a tree: read folder by folder, each in the order of names, by descriptors.
 *
 * Whoever lives in the tree may change it meanwhile. No name is looked up from the root a second time and no link is
 * followed, so what is read is in the tree, whatever they do; what vanishes on the way is not there. Memory holds the
 * names of the folders on the way down, and the first names of files that have several until all of them were seen.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { Fault } from '#base/fault.ts'
import { type FileOrName, readAttributes } from '#host/files/attribute-calls.ts'
import { asFileFault } from '#host/files.ts'
import {
  found,
  look,
  type MountMark,
  namesIn,
  openFolder,
  openToRead,
  readLink,
  settleFileSystem,
} from '#host/files/folder-calls.ts'
import type { IdMap } from '#host/lxc/id-map.ts'
import { compileExcludes, type Excludes } from './excludes.ts'
import { type IdShift, inward, nobody, shiftAttributes } from './inside-ids.ts'
import { below, type EntryKind, identityBytes, pathMaximumBytes } from './record.ts'

/** Where the engine reads a tree from. Folders come in the order of `folderKey`, the entries of each by name. */
export interface TreeSource {
  /** Makes sure that from now on every change leaves a later time of change behind. */
  settle: () => void
  readonly folders: () => Iterable<SourceFolder>
  /** A text that is the same as long as ids mean the same. */
  readonly ids: string
  /** What the owner of the tree should be told, once the folders were read. */
  readonly notes: () => TreeNotes
}

export interface TreeNotes {
  /** Entries that belong, or give rights, to ids the container does not have: kept as nobody's (65534). */
  readonly foreignIds: number
  /** Other file systems mounted in it, of which the mount point alone is kept. */
  readonly mounts: number
  readonly excluded: number
  /** Further names of files with so many names that they are kept as files of their own. */
  readonly apart: number
  /** A few paths for each of them. */
  readonly examples: readonly string[]
}

export interface SourceFolder {
  /** Below the root, each character a byte; the root itself is ''. */
  readonly path: string
  /** What it gives is good until the next. The first entry of the root is the root, without a name. */
  readonly entries: () => Iterable<SourceEntry>
}

export interface SourceEntry {
  readonly name: string
  readonly kind: EntryKind
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Size, times and inode: equal to those of an earlier backup when nothing has changed. */
  readonly identity: Buffer
  readonly sizeBytes: number
  /** May have holes. */
  readonly isSparse: boolean
  readonly changedSeconds: number
  readonly changedNanoseconds: number
  /** Of a link; of a device its number; of a further name the first one. Nothing when it has vanished. */
  readonly target: () => string | undefined
  readonly attributes: (fd?: number) => Buffer
  /** A file that is not empty, for reading. Its facts are then those of what was opened. Nothing when it has vanished. */
  readonly open: () => number | undefined
}

export interface TreeSourceOptions {
  readonly root: string
  /** Of an unprivileged container. */
  readonly idMap?: IdMap | undefined
  /** As in Proxmox VE's `exclude-path`. */
  readonly excludes?: readonly string[] | undefined
  /** Of folders that a `CACHEDIR.TAG` calls a cache only the folder itself is kept. */
  readonly leavesCaches?: boolean | undefined
}

/** As https://bford.info/cachedir/ has it. */
const cacheTag = 'CACHEDIR.TAG'
const cacheMark = Buffer.from('Signature: 8a477f597d28d172789f06886806bc55', 'latin1')

const depthMaximum = 1_024
const linksMaximum = 2 ** 20
const examplesMaximum = 20

export function treeSource(options: TreeSourceOptions): TreeSource {
  return new FolderTree(options)
}

/** What is being walked through: a folder that is open, and the folders in it still to come. */
interface Level {
  readonly fd: number
  readonly path: string
  readonly folders: string[]
  next: number
}

class FolderTree implements TreeSource {
  readonly ids: string
  readonly #root: string
  readonly #isExcluded: Excludes | undefined
  readonly #leavesCaches: boolean
  readonly #entry: WalkedEntry
  readonly #counts = { foreignIds: 0, mounts: 0, excluded: 0, apart: 0 }
  readonly #examples: string[] = []
  /** First names of files that have more which were not seen yet. */
  #links = new Map<bigint, { readonly path: string; left: number }>()
  #mount: MountMark = [0, 0, 0, 0]

  constructor({ root, idMap, excludes = [], leavesCaches = false }: TreeSourceOptions) {
    this.#root = root
    this.#leavesCaches = leavesCaches
    this.#isExcluded = compileExcludes(excludes)
    this.ids = JSON.stringify(idMap ?? [])
    this.#entry = new WalkedEntry(inward(idMap), {
      foreign: () => this.#note('foreignIds', this.#entry.path),
      gone: (inode) => this.#links.delete(inode),
    })
  }

  settle(): void {
    const fd = this.#open()
    try {
      settleFileSystem(fd)
    } finally {
      closeSync(fd)
    }
  }

  notes(): TreeNotes {
    return { ...this.#counts, examples: this.#examples }
  }

  *folders(): Generator<SourceFolder> {
    Object.assign(this.#counts, { foreignIds: 0, mounts: 0, excluded: 0, apart: 0 })
    this.#examples.length = 0
    this.#links.clear()
    const fd = this.#open()
    const levels: Level[] = [{ fd, path: '', folders: [], next: 0 }]
    try {
      look(fd, '')
      this.#mount = found.mount
      for (let level = levels.at(-1); level; level = levels.at(-1)) {
        if (level.next === 0) yield this.#folder(level)
        const name = level.folders[level.next]
        level.next += 1
        if (name === undefined) {
          closeSync(level.fd)
          levels.pop()
        } else this.#enter(levels, level, name)
      }
    } finally {
      for (const level of levels) closeSync(level.fd)
    }
  }

  #open(): number {
    try {
      return openSync(this.#root, constants.O_RDONLY | constants.O_DIRECTORY)
    } catch (cause) {
      throw asFileFault(cause, this.#root)
    }
  }

  #enter(levels: Level[], { fd, path }: Level, name: string): void {
    const inner = below(path, name)
    if (levels.length >= depthMaximum || inner.length > pathMaximumBytes) {
      throw new Fault(
        'too-large',
        `the folders below '${shown(inner.slice(0, 200))}' are nested too deeply to be backed up`,
        {
          remedy: 'Remove them, or exclude them from the backup.',
        },
      )
    }
    const opened = openFolder(fd, name)
    if (opened === undefined) return
    // Something may have been mounted there since its folder was read.
    const isHere = look(opened, '') && found.isOn(this.#mount)
    const isCache = isHere && this.#leavesCaches && isTagged(opened)
    if (isCache) this.#note('excluded', inner)
    if (isHere && !isCache) levels.push({ fd: opened, path: inner, folders: [], next: 0 })
    else closeSync(opened)
  }

  #folder(level: Level): SourceFolder {
    return { path: level.path, entries: () => this.#entries(level) }
  }

  *#entries(level: Level): Generator<SourceEntry> {
    const { fd, path } = level
    const entry = this.#entry
    if (path === '') {
      look(fd, '')
      entry.set(fd, path, '')
      yield entry
    }
    for (const name of namesIn(fd).sort()) {
      if (this.#isExcluded !== undefined && this.#isExcluded(below(path, name))) {
        this.#note('excluded', below(path, name))
        continue
      }
      if (!look(fd, name)) continue
      entry.set(fd, path, name)
      const isElsewhere = !(entry.kind === 'directory' ? found.isOn(this.#mount) : found.isOnMount(this.#mount))
      if (entry.kind === 'directory' && !isElsewhere) level.folders.push(name)
      if (isElsewhere) {
        this.#note('mounts', entry.path)
        entry.withoutContent()
      }
      if (found.links > 1 && entry.kind !== 'directory') this.#join(entry, found.inode, found.links)
      yield entry
    }
  }

  /** A further name of a file is told as such. */
  #join(entry: WalkedEntry, inode: bigint, links: number): void {
    const first = this.#links.get(inode)
    if (first !== undefined) {
      entry.isOneWith(first.path)
      first.left -= 1
      if (first.left === 0) this.#links.delete(inode)
    } else if (this.#links.size < linksMaximum) {
      this.#links.set(inode, { path: entry.path, left: links - 1 })
    } else this.#note('apart', entry.path)
  }

  #note(what: keyof TreeNotes & ('foreignIds' | 'mounts' | 'excluded' | 'apart'), path: string): void {
    this.#counts[what] += 1
    if (this.#examples.length < examplesMaximum) this.#examples.push(`${what}: ${shown(path)}`)
  }
}

function isTagged(folder: number): boolean {
  const fd = openToRead(folder, cacheTag)
  if (fd === undefined) return false
  try {
    const read = Buffer.alloc(cacheMark.length)
    return fstatSync(fd).isFile() && readSync(fd, read, 0, read.length, 0) === read.length && read.equals(cacheMark)
  } finally {
    closeSync(fd)
  }
}

const typeMask = 0o170000
const kindOfType: Readonly<Record<number, EntryKind | undefined>> = {
  [constants.S_IFREG]: 'file',
  [constants.S_IFDIR]: 'directory',
  [constants.S_IFLNK]: 'symbolic link',
  [constants.S_IFIFO]: 'pipe',
  [constants.S_IFSOCK]: 'socket',
  [constants.S_IFCHR]: 'character device',
  [constants.S_IFBLK]: 'block device',
}

/** One for the whole walk: a tree has more entries than objects should be made. */
class WalkedEntry implements SourceEntry {
  readonly identity = Buffer.alloc(identityBytes)
  name = ''
  kind: EntryKind = 'file'
  mode = 0
  uid = 0
  gid = 0
  sizeBytes = 0
  isSparse = false
  changedSeconds = 0
  changedNanoseconds = 0
  #folder = -1
  #folderPath = ''
  #target: string | undefined
  #isNoted = false
  readonly #shift: IdShift | undefined
  readonly #note: { readonly foreign: () => void; readonly gone: (inode: bigint) => void }

  constructor(
    shift: IdShift | undefined,
    note: { readonly foreign: () => void; readonly gone: (inode: bigint) => void },
  ) {
    this.#shift = shift
    this.#note = note
  }

  get path(): string {
    return below(this.#folderPath, this.name)
  }

  /** Takes over what was just looked at. */
  set(folder: number, path: string, name: string): void {
    this.#folder = folder
    this.#folderPath = path
    this.name = name
    this.#isNoted = false
    this.#take()
    this.#target = this.kind.endsWith('device') ? found.device.toString('latin1') : undefined
  }

  #take(): void {
    const kind = kindOfType[found.mode & typeMask]
    if (kind === undefined) throw new Fault('failed', `'${shown(this.path)}' is of a kind no file system has`)
    this.kind = kind
    this.mode = found.mode & 0o7777
    const [uid, gid] = [this.#inside('uid', found.uid), this.#inside('gid', found.gid)]
    if (uid === undefined || gid === undefined) this.#noteForeign()
    this.uid = uid ?? nobody
    this.gid = gid ?? nobody
    this.sizeBytes = kind === 'file' ? found.sizeBytes : 0
    this.isSparse = found.allocatedBytes < found.sizeBytes
    this.changedSeconds = found.changedSeconds
    this.changedNanoseconds = found.changedNanoseconds
    const { bytes } = found
    bytes.copy(this.identity, 0, 40, 48)
    bytes.copy(this.identity, 8, 112, 124)
    bytes.copy(this.identity, 20, 96, 108)
    bytes.copy(this.identity, 32, 32, 40)
    // What a folder takes up on its disk is no fact of its.
    if (kind !== 'file') this.identity.fill(0, 0, 8)
  }

  isOneWith(firstName: string): void {
    this.kind = 'hard link'
    this.#target = firstName
    this.mode = 0
    this.uid = 0
    this.gid = 0
    this.sizeBytes = 0
    this.identity.fill(0)
  }

  withoutContent(): void {
    this.sizeBytes = 0
    this.identity.fill(0, 0, 8)
    this.identity.fill(0, 32)
  }

  target(): string | undefined {
    return this.kind === 'symbolic link' ? readLink(this.#folder, this.name) : (this.#target ?? '')
  }

  attributes(fd?: number): Buffer {
    if (this.kind === 'hard link') return nothing
    const of: FileOrName = fd ?? (this.name === '' ? this.#folder : { folder: this.#folder, name: this.name })
    const { value, foreign } = shiftAttributes(readAttributes(of), this.#shift)
    if (foreign > 0) this.#noteForeign()
    return value
  }

  open(): number | undefined {
    const inode = this.identity.readBigUInt64LE(32)
    const fd = openToRead(this.#folder, this.name)
    if (fd === undefined) {
      // Then it is nobody's first name either.
      this.#note.gone(inode)
      return undefined
    }
    try {
      look(fd, '')
      if ((found.mode & typeMask) === constants.S_IFREG) {
        this.#take()
        return fd
      }
    } catch (cause) {
      closeSync(fd)
      throw cause
    }
    closeSync(fd)
    this.#note.gone(inode)
    return undefined
  }

  /** Once for each entry. */
  #noteForeign(): void {
    if (!this.#isNoted) this.#note.foreign()
    this.#isNoted = true
  }

  #inside(kind: 'uid' | 'gid', id: number): number | undefined {
    return this.#shift ? this.#shift.idOf(kind, id) : id
  }
}

const nothing = Buffer.alloc(0)

/** A path for people. */
export function shown(path: string): string {
  return Buffer.from(path, 'latin1').toString()
}
