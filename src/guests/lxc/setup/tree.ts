/**
 * The file tree of a container, as whoever sets it up sees it. Paths are those inside.
 *
 * Invariant: nothing outside of the tree is read or written, whatever links, pipes and devices lie inside, because
 * the tree is what somebody untrusted made and we are root. Files are replaced in one rename, so a container that is
 * set up at the same moment sees the old or the new. They belong to the container's root, or to whom they did before.
 *
 * Every call waits for the kernel: these are a hundred looks at small files, and most of what they took was the way
 * through the thread pool.
 */
import { randomUUID } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  closeSync,
  fchmodSync,
  fchownSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { MiB } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import { asFileFault, codeOf } from '#host/files.ts'
import { type Handle, openDirectory, openWithin } from '#host/files/open-within.ts'

const mostLinks = 20
/** Some keep lists of half the web in /etc/hosts. */
const mostBytes = 16 * MiB
const mostNames = 10_000

export interface Owner {
  readonly uid: number
  readonly gid: number
}

export interface WriteOptions {
  /** Of a file that is made. One that was there keeps its own. Default: 0644. */
  readonly mode?: number
  /** It gets the mode also when it was there. */
  readonly isPrivate?: boolean
}

export class Tree implements Disposable {
  readonly #root: Handle
  readonly #owner: Owner

  /** @param owner who root is inside, by the ids of the machine */
  constructor(rootfs: string, owner: Owner) {
    this.#root = openDirectory(rootfs)
    this.#owner = owner
  }

  [Symbol.dispose](): void {
    this.#root[Symbol.dispose]()
  }

  /** Text of a file, or nothing when there is no plain file. @throws Fault `too-large` */
  async read(path: string): Promise<string | undefined> {
    using handle = this.#open(path)
    const facts = handle && statSync(handle.path)
    if (handle === undefined || facts?.isFile() !== true) return undefined
    const { size } = facts
    if (size > mostBytes) throw new Fault('too-large', `'${path}' in the container is larger than ${mostBytes} bytes`)
    // As much as there was a moment ago: whoever makes it longer meanwhile is not read to the end.
    const content = Buffer.alloc(size)
    const file = openSync(handle.path, 'r')
    try {
      return content.toString('utf8', 0, readSync(file, content, 0, size, 0))
    } finally {
      closeSync(file)
    }
  }

  async exists(path: string): Promise<boolean> {
    using handle = this.#open(path)
    return handle !== undefined
  }

  async isDirectory(path: string): Promise<boolean> {
    using handle = this.#open(path)
    return handle !== undefined && statSync(handle.path).isDirectory()
  }

  /** What the link says, or nothing when it is none. */
  async linkAt(path: string): Promise<string | undefined> {
    using folder = this.#open(dirname(path))
    return folder && orNothing(() => readlinkSync(join(folder.path, basename(path))))
  }

  /** Names in a directory; none when there is no such. */
  async names(path: string): Promise<string[]> {
    using handle = this.#open(path)
    if (handle === undefined || !statSync(handle.path).isDirectory()) return []
    return readdirSync(handle.path).slice(0, mostNames).toSorted()
  }

  /** Writes a file, or what the link there leads to; folders on the way are made. Nothing happens if it says so already. */
  async write(path: string, content: string | Uint8Array, options: WriteOptions = {}): Promise<void> {
    const place = await this.#behindLinks(path)
    const mode = options.mode ?? 0o644
    const isSame = typeof content === 'string' && options.isPrivate !== true && (await this.#isSame(place, content))
    if (isSame) return
    using folder = await this.#folder(dirname(place))
    const target = join(folder.path, basename(place))
    const before = orNothing(() => lstatSync(target))
    if (before?.isDirectory()) throw new Fault('conflict', `'${path}' in the container is a directory`)
    const isKept = before?.isFile() === true && options.isPrivate !== true
    const { uid, gid } = isKept ? before : this.#owner
    replace(path, target, (temporary) => {
      const file = openSync(temporary, 'wx', 0o600)
      try {
        writeFileSync(file, content)
        fchownSync(file, uid, gid)
        fchmodSync(file, isKept ? before.mode & 0o7777 : mode)
      } finally {
        closeSync(file)
      }
    })
  }

  /** Puts a symbolic link there, in place of a file or another link. */
  async link(path: string, target: string): Promise<void> {
    if ((await this.linkAt(path)) === target) return
    using folder = await this.#folder(dirname(path))
    replace(path, join(folder.path, basename(path)), (temporary) => {
      symlinkSync(target, temporary)
      lchownSync(temporary, this.#owner.uid, this.#owner.gid)
    })
  }

  /** Removes a file or a link, and not what the link leads to. */
  async remove(path: string): Promise<void> {
    using folder = this.#open(dirname(path))
    if (folder) rmSync(join(folder.path, basename(path)), { force: true })
  }

  /** Makes a directory, and those above it. */
  async makeDirectory(path: string, mode = 0o755): Promise<void> {
    using _folder = await this.#folder(path, mode)
  }

  #open(path: string): Handle | undefined {
    return openWithin(this.#root.fd, path)
  }

  async #isSame(path: string, content: string): Promise<boolean> {
    using handle = this.#open(path)
    if (handle === undefined) return false
    const { size } = statSync(handle.path)
    return size === Buffer.byteLength(content) && (await this.read(path)) === content
  }

  /** Where a link at the end of the path leads, inside; it need not exist. */
  async #behindLinks(path: string): Promise<string> {
    let place = path
    for (let links = 0; links < mostLinks; links += 1) {
      const target = await this.linkAt(place)
      if (target === undefined) return place
      // Not put together by `join`: what `..` means is for the kernel to say, who knows where links lead.
      place = target.startsWith('/') ? target : `${dirname(place)}/${target}`
    }
    throw new Fault('failed', `'${path}' in the container leads through too many links`)
  }

  async #folder(path: string, mode = 0o755): Promise<Handle> {
    const found = this.#open(path)
    if (found !== undefined) {
      if (statSync(found.path).isDirectory()) return found
      found[Symbol.dispose]()
      throw new Fault('conflict', `'${path}' in the container is no directory`)
    }
    const place = await this.#behindLinks(path)
    if (dirname(place) === place) throw new Fault('failed', 'the container has no root directory')
    using above = await this.#folder(dirname(place))
    const made = join(above.path, basename(place))
    try {
      mkdirSync(made, 0o700)
    } catch (cause) {
      if (codeOf(cause) !== 'EEXIST') throw cause
    }
    using own = openWithin(above.fd, basename(place))
    if (own === undefined) throw new Fault('conflict', `'${path}' in the container cannot be made`)
    chmodSync(own.path, mode)
    chownSync(own.path, this.#owner.uid, this.#owner.gid)
    const reached = this.#open(place)
    if (reached !== undefined) return reached
    throw new Fault('conflict', `'${path}' in the container is moved away while it is made`)
  }
}

function replace(path: string, target: string, make: (temporary: string) => void): void {
  const temporary = join(dirname(target), `.${randomUUID()}.tmp`)
  try {
    make(temporary)
    renameSync(temporary, target)
  } catch (cause) {
    rmSync(temporary, { force: true })
    throw asFileFault(cause, path)
  }
}

function orNothing<T>(look: () => T): T | undefined {
  try {
    return look()
  } catch (cause) {
    if (['ENOENT', 'EINVAL', 'ENOTDIR'].includes(codeOf(cause) ?? '')) return undefined
    throw cause
  }
}
