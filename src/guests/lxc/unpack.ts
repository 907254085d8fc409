/**
 * A template becomes the root directory of a container: unpacked as it is read, with the ids of its files mapped.
 *
 * The archive is not trusted, in nothing: who unpacks it is in a jail around the root directory, what it may hold is
 * judged before (`tar-stream.ts`), and how much of it there may be is bounded in entries, bytes and time. When this
 * throws, the root directory holds some of the archive; whoever made the directory removes it
 * (`host/files/remove-tree.ts`).
 */
import { constants } from 'node:fs'
import { chown, type FileHandle, open, readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { GiB, MiB } from '#base/bytes.ts'
import { Fault, invalid, isFault } from '#base/fault.ts'
import { asFileFault } from '#host/files.ts'
import { filtered } from '#host/programs/filter.ts'
import type { Argv } from '#host/host.ts'
import { type IdMap, outsideId } from '#host/lxc/id-map.ts'
import { extractTar } from '#host/files/tar.ts'
import { checkedTar, inLargePieces, memberIn, type TarCounts } from './tar-stream.ts'

export interface UnpackLimits {
  readonly entries: number
  /** Of the archive, unpacked. */
  readonly bytes: number
  readonly timeoutMs: number
}

export interface UnpackProgress {
  /** How much of the archive was read, 0 to 1. */
  readonly fraction: number
  readonly entries: number
  readonly bytes: number
}

export interface UnpackTemplate {
  /** A `.tar`, or one packed as `.gz`, `.xz`, `.zst` or `.bz2`; its name says which. */
  readonly archive: string
  /** An empty directory nobody else writes to. It is given to the container's root. */
  readonly rootfs: string
  /** Of an unprivileged container; without one, ids stay as they are. */
  readonly idMap?: IdMap | undefined
  /** Leave in devices, for a privileged container. What is below /dev is always left out. Default: false. */
  readonly keepsDevices?: boolean
  /** Folder whose content is not unpacked. */
  readonly without?: string | undefined
  readonly limits?: Partial<UnpackLimits> | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: UnpackProgress) => void) | undefined
}

export interface Unpacked {
  readonly entries: number
  readonly bytes: number
  /** Members that were not let in: devices, and what was below /dev. */
  readonly leftOut: number
}

export const unpackLimits: UnpackLimits = { entries: 1_000_000, bytes: 256 * GiB, timeoutMs: 60 * 60_000 }

/** Their own bounds on memory are the ones that matter: a small file can ask for a large window. */
const unpackers: Readonly<Record<string, Argv | undefined>> = {
  '': ['cat'],
  '.gz': ['gzip', '--decompress', '--stdout', '--quiet'],
  '.xz': ['xz', '--decompress', '--stdout', '--quiet', '--memlimit-decompress=256MiB'],
  '.zst': ['zstd', '--decompress', '--stdout', '--quiet', '--memory=256MB'],
  '.bz2': ['bzip2', '--decompress', '--stdout', '--quiet'],
  '.lzo': ['lzop', '--decompress', '--stdout', '--quiet'],
}

/**
 * @throws Fault `missing`, `damaged`, `invalid` for what is not let in, `too-large`, `timeout`, `exhausted` when there
 *   is no room; the reason of the signal
 */
export async function unpackTemplate(wish: UnpackTemplate): Promise<Unpacked> {
  const { archive, rootfs, idMap, keepsDevices = false, without, signal, onProgress } = wish
  const { entries, bytes, timeoutMs } = { ...unpackLimits, ...wish.limits }
  const unpacker = unpackerFor(archive)
  await using file = await openArchive(archive)
  const { size } = await file.stat()
  await giveToRoot(rootfs, idMap)
  const counts: TarCounts = { entries: 0, bytes: 0, leftOut: 0 }
  const stop = new AbortController()
  const timer = setTimeout(
    () => stop.abort(new Fault('timeout', `the archive is not unpacked within ${timeoutMs / 1000} s`)),
    timeoutMs,
  )
  const either = signal === undefined ? stop.signal : AbortSignal.any([stop.signal, signal])
  try {
    const plain = watched(unpacking(unpacker, file, either), async () => {
      onProgress?.({ fraction: await fractionOf(file, size), entries: counts.entries, bytes: counts.bytes })
    })
    const rules = { idMap, keepsDevices, without, mostEntries: entries, mostBytes: bytes }
    await extractTar(inLargePieces(checkedTar(plain, rules, counts)), { directory: rootfs, idMap, signal: either })
  } finally {
    clearTimeout(timer)
  }
  return { ...counts }
}

/** Reads an archive to its end and unpacks nothing of it. @throws as `unpackTemplate` */
export async function checkArchive(
  archive: string,
  { signal, onProgress }: { readonly signal: AbortSignal; readonly onProgress: (fraction: number) => void },
): Promise<Unpacked> {
  await using file = await openArchive(archive)
  const { size } = await file.stat()
  const counts: TarCounts = { entries: 0, bytes: 0, leftOut: 0 }
  const plain = watched(unpacking(unpackerFor(archive), file, signal), async () =>
    onProgress(await fractionOf(file, size)),
  )
  const { entries: mostEntries, bytes: mostBytes } = unpackLimits
  for await (const _ of checkedTar(plain, { keepsDevices: true, mostEntries, mostBytes }, counts));
  return { ...counts }
}

/** The content of one small file of an archive; nothing when it has no such file. @throws as `unpackTemplate` */
export async function fileInArchive(
  archive: string,
  path: string,
  { mostBytes, signal }: { readonly mostBytes: number; readonly signal: AbortSignal },
): Promise<Buffer | undefined> {
  await using file = await openArchive(archive)
  return memberIn(unpacking(unpackerFor(archive), file, signal), path, mostBytes)
}

function unpackerFor(archive: string): Argv {
  const [isArchive, packed = ''] = /\.tar(\.\w+)?$/.exec(archive.toLowerCase().replace(/\.tgz$/, '.tar.gz')) ?? []
  const unpacker = isArchive === undefined ? undefined : unpackers[packed]
  if (unpacker !== undefined) return unpacker
  throw invalid({ ostemplate: `'${basename(archive)}' must end in .tar, .tar.gz, .tar.xz, .tar.zst or .tar.bz2` })
}

async function openArchive(path: string): Promise<FileHandle> {
  // A pipe in the file's place would hold us for ever.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
  if ((await file.stat()).isFile()) return file
  await file.close()
  throw new Fault('invalid', `'${path}' is no file`)
}

/** Whoever unpacks is the container's root, and nobody else. */
async function giveToRoot(rootfs: string, idMap: IdMap | undefined): Promise<void> {
  const idOf = (kind: 'uid' | 'gid') => (idMap === undefined ? 0 : outsideId(idMap, kind, 0))
  const [uid, gid] = [idOf('uid'), idOf('gid')]
  if (uid === undefined || gid === undefined) {
    throw new Fault('invalid', 'the id map of the container has no root: id 0 is in none of its ranges')
  }
  await chown(rootfs, uid, gid)
}

async function* unpacking(argv: Argv, file: FileHandle, signal: AbortSignal): AsyncGenerator<Buffer> {
  try {
    yield* filtered(argv, file, signal)
  } catch (cause) {
    if (!isFault(cause, 'damaged')) throw cause
    throw new Fault('damaged', `the archive cannot be unpacked: ${cause.message}`, { cause })
  }
}

const reportEveryBytes = 8 * MiB

async function* watched(pieces: AsyncIterable<Buffer>, report: () => Promise<void>): AsyncGenerator<Buffer> {
  let since = 0
  for await (const piece of pieces) {
    yield piece
    since += piece.length
    if (since < reportEveryBytes) continue
    since = 0
    await report()
  }
  await report()
}

/** How far the program that unpacks has come: it reads by our descriptor, whose position the kernel tells. */
async function fractionOf(file: FileHandle, size: number): Promise<number> {
  const [, position] = /^pos:\s*(\d+)/m.exec(await readFile(`/proc/self/fdinfo/${file.fd}`, 'utf8')) ?? []
  return size === 0 ? 1 : Math.min(1, Number(position ?? 0) / size)
}
