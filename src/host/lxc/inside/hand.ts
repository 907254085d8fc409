/**
 * Reads, writes and lists files of a container as its root: a program of its own, which `inside.ts` starts within the
 * container's user namespace, with the root of its files as descriptor 3. What root inside may not do, this may not.
 *
 * Its text is handed to Node as it is, because nobody inside may read our files; so it imports nothing of ours. It says
 * one line of JSON (what was done, or why not), and after that, when a file is read, the bytes of the file.
 *
 * Links and `..` are the kernel's to resolve, with that root as `/`: there is no moment between looking and opening. A
 * file is written where no name leads, and then put in the place of the old one by a rename; a hand that dies on the way
 * has done nothing.
 */
import { randomUUID } from 'node:crypto'
import { closeSync, constants } from 'node:fs'
import {
  chmod,
  chown,
  type FileHandle,
  lstat,
  mkdir,
  open,
  readdir,
  readlink,
  rename,
  rm,
  stat,
} from 'node:fs/promises'
import ffi from 'node:ffi'
import { basename, dirname, join } from 'node:path'

type Wish =
  | { readonly act: 'read'; readonly path: string }
  | { readonly act: 'list'; readonly path: string; readonly most: number }
  | {
      readonly act: 'write'
      readonly path: string
      readonly sizeBytes: number
      readonly mode?: number
      readonly uid?: number
      readonly gid?: number
      readonly parents: boolean
    }

const root = 3
const SYS_openat2 = 437n
const RESOLVE_NO_MAGICLINKS_IN_ROOT = 0x12n
const O_PATH_CLOEXEC = 0o12000000n
const O_TMPFILE = 0o20200000
const AT_SYMLINK_FOLLOW = 0x400
const codes: Readonly<Record<number, string>> = { 2: 'ENOENT', 11: 'EAGAIN', 13: 'EACCES', 20: 'ENOTDIR', 40: 'ELOOP' }
const mostLinks = 20

class Refusal extends Error {
  readonly kind: string
  readonly remedy: string | undefined
  constructor(kind: string, message: string, { remedy }: { readonly remedy?: string } = {}) {
    super(message)
    this.kind = kind
    this.remedy = remedy
  }
}

const libc = ffi.dlopen('libc.so.6', {
  syscall: { arguments: ['i64', 'i64', 'pointer', 'pointer', 'u64'], return: 'i64' },
  linkat: { arguments: ['i32', 'pointer', 'i32', 'pointer', 'i32'], return: 'i32' },
  __errno_location: { arguments: [], return: 'pointer' },
}).functions
const errno = () => ffi.getInt32(libc.__errno_location())
const text = (value: string) => Buffer.from(`${value}\0`)

interface Handle extends Disposable {
  readonly path: string
  readonly fd: number
}

/** A handle and no more: no pipe waits, no device notices. Nothing when there is no such thing. */
function find(path: string, from = root): Handle | undefined {
  const how = Buffer.alloc(24)
  how.writeBigUInt64LE(O_PATH_CLOEXEC, 0)
  how.writeBigUInt64LE(RESOLVE_NO_MAGICLINKS_IN_ROOT, 16)
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const fd = Number(libc.syscall(SYS_openat2, BigInt(from), text(path), how, BigInt(how.length)))
    if (fd >= 0) return { fd, path: `/proc/self/fd/${fd}`, [Symbol.dispose]: () => closeSync(fd) }
    const code = codes[errno()]
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    if (code === 'EAGAIN') continue
    if (code === 'EACCES') throw new Refusal('denied', `root of the container may not reach '${path}'`)
    throw new Refusal('failed', `'${path}' cannot be opened (${code ?? `errno ${errno()}`})`)
  }
  throw new Refusal('conflict', `'${path}' cannot be opened: somebody goes on moving directories on the way`)
}

function required(path: string): Handle {
  const found = find(path)
  if (found) return found
  throw new Refusal('missing', `'${path}' does not exist in the container`)
}

function say(facts: unknown): Promise<void> {
  return new Promise((resolve) => process.stdout.write(`${JSON.stringify(facts)}\n`, () => resolve()))
}

async function read(path: string): Promise<void> {
  using handle = required(path)
  const { mode, uid, gid, size } = await plainFile(handle, path)
  await using file = await open(handle.path, constants.O_RDONLY | constants.O_NONBLOCK)
  // What the kernel makes up as it is read has no size to tell.
  await say({ name: basename(path), mode: mode & 0o7777, uid, gid, ...(size > 0 ? { sizeBytes: size } : {}) })
  let left = size > 0 ? size : Number.POSITIVE_INFINITY
  const piece = Buffer.alloc(512 * 1024)
  while (left > 0) {
    const { bytesRead } = await file.read(piece, 0, Math.min(piece.length, left), null)
    if (bytesRead === 0) break
    left -= bytesRead
    await new Promise<void>((resolve) => process.stdout.write(piece.subarray(0, bytesRead), () => resolve()))
  }
  if (size > 0 && left > 0) process.exitCode = 1
}

async function plainFile(handle: Handle, path: string) {
  const facts = await stat(handle.path)
  if (facts.isFile()) return facts
  if (facts.isDirectory()) {
    throw new Refusal('conflict', `'${path}' in the container is a folder`, {
      remedy: 'Take it as an archive: --archive 1.',
    })
  }
  throw new Refusal('conflict', `'${path}' in the container is no plain file`)
}

async function list(path: string, most: number): Promise<void> {
  using handle = required(path)
  const facts = await stat(handle.path)
  const names = facts.isDirectory() ? (await readdir(handle.path)).toSorted() : undefined
  const entries = []
  for (const name of (names ?? []).slice(0, most)) {
    const entry = await entryOf(name, join(handle.path, name)).catch(() => undefined)
    // Gone since its name was read.
    if (entry) entries.push(entry)
  }
  await say({
    entries: names ? entries : [await entryOf(basename(path), handle.path, facts)],
    isWhole: (names ?? []).length <= most,
  })
}

async function entryOf(name: string, path: string, known?: Awaited<ReturnType<typeof lstat>>) {
  const facts = known ?? (await lstat(path))
  const kinds = [
    [facts.isFile(), 'file'],
    [facts.isDirectory(), 'folder'],
    [facts.isSymbolicLink(), 'link'],
    [facts.isFIFO(), 'pipe'],
    [facts.isSocket(), 'socket'],
    [facts.isBlockDevice() || facts.isCharacterDevice(), 'device'],
  ] as const
  const { mode, uid, gid, size, mtimeMs } = facts
  const target = facts.isSymbolicLink() ? { target: await readlink(path) } : {}
  const type = kinds.find(([is]) => is)?.[1] ?? 'other'
  return {
    name,
    type,
    mode: (Number(mode) & 0o7777).toString(8).padStart(4, '0'),
    uid,
    gid,
    size,
    mtime: Math.floor(Number(mtimeMs) / 1000),
    ...target,
  }
}

async function write(wish: Wish & { act: 'write' }): Promise<void> {
  const place = await behindLinks(wish.path)
  using folder = await folderAt(dirname(place), wish.parents)
  const target = join(folder.path, basename(place))
  const before = await lstat(target).catch(() => undefined)
  if (before?.isDirectory()) {
    throw new Refusal('conflict', `'${wish.path}' in the container is a folder`, {
      remedy: `Name the file in it: ${wish.path}/NAME.`,
    })
  }
  if (before && !before.isFile()) throw new Refusal('conflict', `'${wish.path}' in the container is no plain file`)
  const { uid = before?.uid ?? 0, gid = before?.gid ?? 0, mode = before ? before.mode & 0o7777 : 0o644 } = wish
  const temporary = join(folder.path, `.${randomUUID()}.tmp`)
  try {
    await using file = await nameless(folder, temporary)
    await fill(file, wish.sizeBytes)
    await file.chown(uid, gid)
    await file.chmod(mode)
    await file.sync()
    await named(file, temporary)
    await rename(temporary, target)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  await using held = await open(folder.path, constants.O_RDONLY | constants.O_DIRECTORY)
  await held.sync().catch(() => {}) // Not every file system has that.
  await say({ uid, gid, mode })
}

/** Without a name nothing is left of it when this ends early; file systems that cannot do that get one. */
async function nameless(folder: Handle, temporary: string): Promise<FileHandle> {
  try {
    return await open(folder.path, O_TMPFILE | constants.O_WRONLY, 0o600)
  } catch (error) {
    if (!['ENOTSUP', 'EOPNOTSUPP', 'EISDIR', 'EINVAL'].includes(codeOf(error))) throw error
    return open(temporary, 'wx', 0o600)
  }
}

async function named(file: FileHandle, temporary: string): Promise<void> {
  if (await lstat(temporary).catch(() => undefined)) return
  const here = -100
  if (libc.linkat(here, text(`/proc/self/fd/${file.fd}`), here, text(temporary), AT_SYMLINK_FOLLOW) === 0) return
  throw new Refusal('failed', `the file cannot be given its name (errno ${errno()})`)
}

/** @throws Refusal when fewer bytes come than were announced: then whoever sent them has broken off */
async function fill(file: FileHandle, sizeBytes: number): Promise<void> {
  let left = sizeBytes
  for await (const piece of process.stdin as AsyncIterable<Buffer>) {
    left -= piece.length
    for (let at = 0; at < piece.length;) at += (await file.write(piece, at)).bytesWritten
  }
  if (left !== 0) throw new Refusal('aborted', 'the file did not come whole')
}

/** Where a link at the end of the path leads, inside; it need not exist. */
async function behindLinks(path: string): Promise<string> {
  let place = path
  for (let links = 0; links < mostLinks; links += 1) {
    using folder = find(dirname(place))
    const target = folder && (await readlink(join(folder.path, basename(place))).catch(() => undefined))
    if (target === undefined) return place
    // Not put together by `join`: what `..` means is for the kernel to say, who knows where links lead.
    place = target.startsWith('/') ? target : `${dirname(place)}/${target}`
  }
  throw new Refusal('failed', `'${path}' in the container leads through too many links`)
}

async function folderAt(path: string, mayMake: boolean): Promise<Handle> {
  const found = find(path)
  if (found !== undefined) {
    if ((await stat(found.path)).isDirectory()) return found
    found[Symbol.dispose]()
    throw new Refusal('conflict', `'${path}' in the container is no folder`)
  }
  if (!mayMake) {
    throw new Refusal('missing', `folder '${path}' does not exist in the container`, {
      remedy: 'To have it made: --parents 1.',
    })
  }
  const place = await behindLinks(path)
  using above = await folderAt(dirname(place), true)
  const made = join(above.path, basename(place))
  await mkdir(made, 0o700).catch((error: unknown) => {
    if (codeOf(error) !== 'EEXIST') throw error
  })
  using own = find(basename(place), above.fd)
  if (own === undefined) throw new Refusal('conflict', `'${path}' in the container cannot be made`)
  await chmod(own.path, 0o755)
  await chown(own.path, 0, 0)
  return find(place) ?? required(place)
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}

const kinds: Readonly<Record<string, readonly [kind: string, says: string]>> = {
  ENOSPC: ['exhausted', 'there is no room for it'],
  EDQUOT: ['exhausted', 'there is no room for it'],
  EFBIG: ['exhausted', 'it is larger than a file may be there'],
  EROFS: ['denied', 'it is on a file system that is read-only'],
  EACCES: ['denied', 'root of the container may not do that'],
  EPERM: ['denied', 'root of the container may not do that'],
  ENOENT: ['denied', 'no file can be made there'],
  ENAMETOOLONG: ['invalid', 'the name is too long'],
  EINVAL: ['invalid', 'the container has no such owner, or its file system no such file'],
}

async function act(wish: Wish): Promise<void> {
  switch (wish.act) {
    case 'read':
      return read(wish.path)
    case 'list':
      return list(wish.path, wish.most)
    case 'write':
      return write(wish)
    default:
      return wish satisfies never
  }
}

const wish = JSON.parse(process.argv[1] ?? 'null') as Wish
try {
  process.umask(0)
  await act(wish)
} catch (error) {
  const [kind, says] = kinds[codeOf(error)] ?? ['failed', error instanceof Error ? error.message : String(error)]
  const fault =
    error instanceof Refusal
      ? { kind: error.kind, message: error.message, remedy: error.remedy }
      : { kind, message: `'${wish.path}' in the container: ${says}` }
  await say({ fault })
  process.exitCode = 1
}
