/**
 * The files in a backup, listed and given out without being restored: of a container as it saw them, the trees of its mounts
 * in one another; of a virtual machine those on its disks (`disk-files.ts`).
 *
 * A path is text in which each character is a byte, with a slash in front.
 */
import { posix } from 'node:path'
import { pipeline, Readable } from 'node:stream'
import { createZstdCompress } from 'node:zlib'
import { Fault, invalid } from '#base/fault.ts'
import type { VolumeId } from '#base/ids.ts'
import { integer, object, optional, string, type Static } from '#base/schema/schema.ts'
import type { Manifest } from '#datastore/points/manifest.ts'
import type { BackupReader } from '#datastore/restore/reader.ts'
import type { EntryKind } from '#datastore/tree/record.ts'
import type { ReadEntry, ReadTree } from '#datastore/tree/read-tree.ts'
import { textOf, type TreeReader } from '#datastore/tree/reader.ts'
import { tarOfParts } from '#datastore/tree/tar.ts'
import { zipOf } from '#datastore/tree/zip.ts'
import type { BackupSources } from './backups.ts'
import { BackupDiskTree } from './disk-files.ts'

export interface BackupFile {
  readonly path: string
  readonly name: string
  readonly entry: ReadEntry & { readonly isVirtual?: boolean }
}

/** Where a path of the container is: in which tree, and there. */
interface Place {
  readonly tree: TreeReader
  readonly path: string
}

/** What is at the path: of a folder what is in it, of anything else itself. @throws Fault `missing`, `invalid` */
export async function filesAt(sources: BackupSources, volid: VolumeId, path: string): Promise<BackupFile[]> {
  const disks = await disksIn(sources, volid)
  if (disks) return filesIn(disks, foldersOf(path).join('/'), path)
  await using reader = await openWithTrees(sources.backup, volid)
  const place = placeOf(reader, path)
  return await filesIn(place.tree, place.path, path)
}

async function filesIn<E extends ReadEntry>(tree: ReadTree<E>, inside: string, path: string): Promise<BackupFile[]> {
  const entry = await tree.entry(inside)
  if (entry.kind !== 'directory') return [{ path, name: posix.basename(path), entry }]
  const files: BackupFile[] = []
  for await (const one of tree.list(inside)) {
    if (files.length === listMaximum) throw tooMany(path)
    files.push({ path: posix.join(path, one.name), name: one.name, entry: one })
  }
  return files
}

/** Of a virtual machine. */
async function disksIn({ backup, fileMachines }: BackupSources, volid: VolumeId): Promise<BackupDiskTree | undefined> {
  const { manifest } = await backup.describe(volid)
  return manifest.point.type === 'vm' ? new BackupDiskTree(fileMachines, volid, manifest) : undefined
}

const listMaximum = 100_000
/** Between two pieces of what somebody fetches. */
const longestPauseMs = 10 * 60_000

function tooMany(path: string): Fault {
  return new Fault('too-large', `'${textOf(path)}' has more than ${listMaximum} entries`, {
    remedy: 'Fetch the folder, or restore the backup.',
  })
}

export type FolderForm = 'tar' | 'tar.zst' | 'zip'

export interface FileWish {
  readonly path: string
  readonly form: FolderForm
}

export interface FetchedFile {
  readonly fileName: string
  readonly bytes: Readable
  readonly sizeBytes?: number
}

/** A file as it is, a folder in one of the forms. @throws Fault `missing`; `invalid` for what is neither */
export async function fetchFile(sources: BackupSources, volid: VolumeId, wish: FileWish): Promise<FetchedFile> {
  const disks = await disksIn(sources, volid)
  if (disks) return fetchFromDisk(disks, wish)
  const { path, form } = wish
  const reader = await openWithTrees(sources.backup, volid)
  try {
    const { tree, path: inside } = placeOf(reader, path)
    const entry = await tree.entry(inside)
    const name = textOf(posix.basename(path)) || 'root'
    switch (entry.kind) {
      case 'file':
      case 'hard link': {
        const file = entry.kind === 'file' ? entry : await tree.entry(entry.target ?? '')
        if (file.kind !== 'file') throw noContent(path, file.kind)
        return { fileName: name, bytes: poured(tree.content(file), reader), sizeBytes: file.sizeBytes }
      }
      case 'directory':
        return { fileName: `${name}.${form}`, bytes: poured(folderAs(form, reader, path), reader, form === 'tar.zst') }
      default:
        throw noContent(path, entry.kind, entry.target)
    }
  } catch (cause) {
    await reader[Symbol.asyncDispose]()
    throw cause
  }
}

async function fetchFromDisk(tree: BackupDiskTree, { path, form }: FileWish): Promise<FetchedFile> {
  const folders = foldersOf(path)
  const entry = await tree.entry(folders.join('/'))
  const [name, nothing] = [textOf(folders.at(-1) ?? '') || 'root', new AsyncDisposableStack()]
  if (entry.kind === 'file') {
    return { fileName: name, bytes: poured(tree.content(entry), nothing), sizeBytes: entry.sizeBytes }
  }
  if (entry.kind !== 'directory') throw noContent(path, entry.kind, entry.target)
  const trees = { tree: () => tree }
  const top = textOf(folders.join('/'))
  const packed = form === 'zip' ? zipOf(trees, '', top, name) : tarOfParts(trees, [{ name: '', path: top, as: name }])
  return { fileName: `${name}.${form}`, bytes: poured(packed, nothing, form === 'tar.zst') }
}

/** A folder with what is mounted in it. @throws Fault `invalid` for a zip of several trees */
function folderAs(form: FolderForm, reader: BackupReader, path: string): AsyncGenerator<Uint8Array> {
  const { tree, path: inside } = placeOf(reader, path)
  const folders = foldersOf(path)
  const as = textOf(folders.at(-1) ?? '.')
  const top = { name: tree.facts.name, path: textOf(inside), as }
  const isBelow = (mount: Mount) => mount.folders.length > folders.length && isWithin(mount.folders, folders)
  const mounted = mountsIn(reader).filter(isBelow)
  if (form !== 'zip') {
    const parts = mounted.map(({ name, folders: at }) => ({
      name,
      path: '',
      as: textOf([as, ...at.slice(folders.length)].join('/')),
    }))
    return tarOfParts(reader, [top, ...parts])
  }
  const [first] = mounted
  if (first === undefined) return zipOf(reader, top.name, top.path, as)
  throw invalid(
    { path: `'/${textOf(first.folders.join('/'))}' is mounted in it, and a zip holds one file system` },
    { remedy: 'Ask for a tar archive, or fetch the folders in it one by one.' },
  )
}

/** The reader is held until the last byte is taken, or nobody wants any more. */
function poured(pieces: AsyncIterable<Uint8Array>, reader: AsyncDisposable, isPacked = false): Readable {
  const late = new Fault('timeout', `nobody took any of it for ${longestPauseMs / 60_000} minutes`)
  const plain: Readable = Readable.from(
    watched(pieces, () => plain.destroy(late)),
    { objectMode: false },
  )
  // What ends one of them ends the other; whoever reads hears of it.
  const bytes: Readable = isPacked ? pipeline(plain, createZstdCompress(), () => {}) : plain
  bytes.once('close', () => void reader[Symbol.asyncDispose]())
  return bytes
}

/** As long as a reader lives no space is given back, so nobody may keep one by taking nothing. */
async function* watched(pieces: AsyncIterable<Uint8Array>, onPause: () => void): AsyncGenerator<Uint8Array> {
  let timer: NodeJS.Timeout | undefined
  try {
    for await (const piece of pieces) {
      timer = setTimeout(onPause, longestPauseMs)
      yield piece
      clearTimeout(timer)
    }
  } finally {
    clearTimeout(timer)
  }
}

function noContent(path: string, kind: EntryKind, target?: string): Fault {
  const where = target === undefined || kind !== 'symbolic link' ? '' : ` to '${textOf(target)}'`
  return invalid({ path: `'${textOf(path)}' is neither a file nor a folder: it is a ${kind}${where}` })
}

async function openWithTrees(backup: BackupSources['backup'], volid: VolumeId): Promise<BackupReader> {
  const reader = await backup.open(volid)
  try {
    requireFiles(reader.manifest, volid)
    return reader
  } catch (cause) {
    await reader[Symbol.asyncDispose]()
    throw cause
  }
}

/** @throws Fault `invalid` for a backup of something else */
export function requireFiles({ point }: Manifest, volid: VolumeId): void {
  if (point.type === 'ct') return
  throw new Fault('invalid', `'${volid}' is the backup of no guest`)
}

/** @throws Fault `invalid` for what is no path */
function foldersOf(path: string): string[] {
  const folders = path.split('/').filter((part) => part !== '' && part !== '.')
  if (path.startsWith('/') && !folders.includes('..') && !path.includes('\0')) return folders
  throw invalid({ path: `'${textOf(path)}' is no plain path from the root` })
}

/** The tree that is mounted deepest on the way to the path. @throws Fault `invalid` for what is no path */
function placeOf(reader: BackupReader, path: string): Place {
  const folders = foldersOf(path)
  const [deepest] = mountsIn(reader)
    .filter((mount) => isWithin(folders, mount.folders))
    .toSorted((a, b) => b.folders.length - a.folders.length)
  if (!deepest) throw new Fault('damaged', 'the backup has no root file system')
  return { tree: reader.tree(deepest.name), path: folders.slice(deepest.folders.length).join('/') }
}

interface Mount {
  /** `rootfs`, `mp0` */
  readonly name: string
  /** On the way to where it is mounted. */
  readonly folders: readonly string[]
}

function isWithin(folders: readonly string[], above: readonly string[]): boolean {
  return above.every((folder, at) => folders[at] === folder)
}

/** In the order of their depth, so that what is mounted in another comes after it. */
function mountsIn(reader: BackupReader): Mount[] {
  const { mounts } = reader.manifest.facts
  const paths: Readonly<Record<string, unknown>> = typeof mounts === 'object' && mounts !== null ? { ...mounts } : {}
  const all = reader.manifest.trees.flatMap(({ name }): Mount[] => {
    const path = paths[name] ?? (name === 'rootfs' ? '/' : undefined)
    if (typeof path !== 'string') return []
    return [{ name, folders: Buffer.from(path).toString('latin1').split('/').filter(Boolean) }]
  })
  return all.toSorted((a, b) => a.folders.length - b.folders.length)
}

export const fileItem = object({
  name: string({ description: 'Name.' }),
  path: string({ description: 'Path inside.' }),
  type: string({ description: 'file, folder, link, hard link, pipe, socket or device.' }),
  mode: string({ description: 'Its mode.' }),
  uid: integer({ description: 'Its owner inside.' }),
  gid: integer({ description: 'Its group inside.' }),
  size: integer({ description: 'Bytes.' }),
  mtime: integer({ description: 'When its content changed last.' }),
  target: optional(string({ description: 'Where a link leads.' })),
})

const words: Readonly<Record<EntryKind, string>> = {
  file: 'file',
  directory: 'folder',
  'symbolic link': 'link',
  'hard link': 'hard link',
  pipe: 'pipe',
  socket: 'socket',
  'character device': 'device',
  'block device': 'device',
}

/** For people: names that are no text lose what is none. */
export function fileItemOf({ path, name, entry }: BackupFile): Static<typeof fileItem> {
  return {
    name: textOf(name),
    path: textOf(path),
    type: words[entry.kind],
    mode: entry.mode.toString(8).padStart(4, '0'),
    uid: entry.uid,
    gid: entry.gid,
    size: entry.sizeBytes,
    mtime: entry.modified.seconds,
    target: entry.target === undefined ? undefined : textOf(entry.target),
  }
}
