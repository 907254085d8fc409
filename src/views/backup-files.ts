/**
 * The files in a backup of a container, as the container saw them: the trees of its mounts in one another. They are listed,
 * and given out, without being restored.
 *
 * A path is text in which each character is a byte, with a slash in front.
 */
import { posix } from 'node:path'
import { pipeline, Readable } from 'node:stream'
import { createZstdCompress } from 'node:zlib'
import { Fault, invalid } from '#base/fault.ts'
import type { VolumeId } from '#base/ids.ts'
import { integer, object, optional, string, type Static } from '#base/schema/schema.ts'
import { type Manifest, treesOf } from '#backup/manifest.ts'
import type { BackupReader } from '#backup/reader.ts'
import type { EntryKind } from '#backup/tree/record.ts'
import { textOf, type TreeEntry, type TreeReader } from '#backup/tree/reader.ts'
import { tarOf } from '#backup/tree/tar.ts'
import { zipOf } from '#backup/tree/zip.ts'
import type { BackupSources } from './backups.ts'

export interface BackupFile {
  readonly path: string
  readonly name: string
  readonly entry: TreeEntry
}

/** Where a path of the container is: in which tree, and there. */
interface Place {
  readonly tree: TreeReader
  readonly path: string
}

/** What is at the path: of a folder what is in it, of anything else itself. @throws Fault `missing`, `invalid` */
export async function filesAt({ backup }: BackupSources, volid: VolumeId, path: string): Promise<BackupFile[]> {
  await using reader = await openWithTrees(backup, volid)
  const place = placeOf(reader, path)
  const entry = await place.tree.entry(place.path)
  if (entry.kind !== 'directory') return [{ path, name: posix.basename(path), entry }]
  const files: BackupFile[] = []
  for await (const one of place.tree.list(place.path)) {
    if (files.length === listMaximum) throw tooMany(path)
    files.push({ path: posix.join(path, one.name), name: one.name, entry: one })
  }
  return files
}

const listMaximum = 100_000

function tooMany(path: string): Fault {
  return new Fault('too-large', `'${textOf(path)}' has more than ${listMaximum} entries`, {
    remedy: 'Fetch the folder, or restore the backup.',
  })
}

export type FolderForm = 'tar' | 'tar.zst' | 'zip'

export interface FetchedFile {
  readonly fileName: string
  readonly bytes: Readable
  readonly sizeBytes?: number
}

/** A file as it is, a folder in one of the forms; what is mounted in a folder is fetched by itself. @throws Fault `missing`; `invalid` for what is neither */
export async function fetchFile(
  { backup }: BackupSources,
  volid: VolumeId,
  { path, form }: { readonly path: string; readonly form: FolderForm },
): Promise<FetchedFile> {
  const reader = await openWithTrees(backup, volid)
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
      case 'directory': {
        const [of, top] = [tree.facts.name, textOf(inside)]
        const pieces = form === 'zip' ? zipOf(reader, of, top) : tarOf(reader, of, top)
        return { fileName: `${name}.${form}`, bytes: poured(pieces, reader, form === 'tar.zst') }
      }
      default:
        throw noContent(path, entry.kind, entry.target)
    }
  } catch (cause) {
    await reader[Symbol.asyncDispose]()
    throw cause
  }
}

/** The reader is held until the last byte is taken, or nobody wants any more. */
function poured(pieces: AsyncIterable<Uint8Array>, reader: BackupReader, isPacked = false): Readable {
  const plain = Readable.from(pieces, { objectMode: false })
  // What ends one of them ends the other; whoever reads hears of it.
  const bytes: Readable = isPacked ? pipeline(plain, createZstdCompress(), () => {}) : plain
  bytes.once('close', () => void reader[Symbol.asyncDispose]())
  return bytes
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

/** @throws Fault `invalid` for a backup of disks */
export function requireFiles({ type }: Manifest, volid: VolumeId): void {
  if (type === 'ct') return
  throw new Fault('invalid', `'${volid}' holds disks: the files in them cannot be listed by this release`, {
    remedy: 'Restore it under another id to get at its files.',
  })
}

/** The tree that is mounted deepest on the way to the path. @throws Fault `invalid` for what is no path */
function placeOf(reader: BackupReader, path: string): Place {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.')
  if (!path.startsWith('/') || parts.includes('..') || path.includes('\0')) {
    throw invalid({ path: `'${textOf(path)}' is no plain path from the root` })
  }
  const mounts = mountsIn(reader)
    .filter(({ folders }) => folders.every((folder, at) => parts[at] === folder))
    .toSorted((a, b) => b.folders.length - a.folders.length)
  const [deepest] = mounts
  if (!deepest) throw new Fault('damaged', 'the backup has no root file system')
  return { tree: reader.tree(deepest.name), path: parts.slice(deepest.folders.length).join('/') }
}

function mountsIn(reader: BackupReader): { readonly name: string; readonly folders: readonly string[] }[] {
  const { mounts } = reader.manifest.facts
  const paths: Readonly<Record<string, unknown>> = typeof mounts === 'object' && mounts !== null ? { ...mounts } : {}
  return treesOf(reader.manifest).flatMap(({ name }) => {
    const path = paths[name] ?? (name === 'rootfs' ? '/' : undefined)
    if (typeof path !== 'string') return []
    return [{ name, folders: Buffer.from(path).toString('latin1').split('/').filter(Boolean) }]
  })
}

export const fileItem = object({
  name: string({ description: 'Name.' }),
  path: string({ description: 'Path inside the container.' }),
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
