/**
 * Calls on files by the descriptor of their folder and their name in it, which is how a tree is walked, or made, beside
 * somebody who changes it: a name is never looked up twice, and a link in its place is never followed.
 *
 * All of them are of the kernel's own and wait for it. A name is text in which each character is a byte, because a name
 * may be in any encoding or in none. Failures are errors with a `code`, as Node's own are.
 */
import { constants } from 'node:fs'
import ffi from 'node:ffi'
import { getSystemErrorName } from 'node:util'

const O_CLOEXEC = 0o2000000
const [AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH] = [0x100, 0x1000]
/** The basic facts, and the number of the mount. */
const STATX_MASK = 0x17ff
const [ENOENT, EPERM] = [2, 1]

let loaded: ReturnType<typeof load> | undefined
const libc = () => (loaded ??= load())

function load() {
  const { functions } = ffi.dlopen('libc.so.6', {
    openat: { arguments: ['i32', 'pointer', 'i32', 'u32'], return: 'i32' },
    statx: { arguments: ['i32', 'pointer', 'i32', 'u32', 'pointer'], return: 'i32' },
    getdents64: { arguments: ['i32', 'pointer', 'u64'], return: 'i64' },
    readlinkat: { arguments: ['i32', 'pointer', 'pointer', 'u64'], return: 'i64' },
    mkdirat: { arguments: ['i32', 'pointer', 'u32'], return: 'i32' },
    mknodat: { arguments: ['i32', 'pointer', 'u32', 'u64'], return: 'i32' },
    symlinkat: { arguments: ['pointer', 'i32', 'pointer'], return: 'i32' },
    linkat: { arguments: ['i32', 'pointer', 'i32', 'pointer', 'i32'], return: 'i32' },
    fchownat: { arguments: ['i32', 'pointer', 'u32', 'u32', 'i32'], return: 'i32' },
    fchmodat: { arguments: ['i32', 'pointer', 'u32', 'i32'], return: 'i32' },
    utimensat: { arguments: ['i32', 'pointer', 'pointer', 'i32'], return: 'i32' },
    futimens: { arguments: ['i32', 'pointer'], return: 'i32' },
    syncfs: { arguments: ['i32'], return: 'i32' },
    __errno_location: { arguments: [], return: 'pointer' },
  })
  // One place per thread, for as long as the thread lives.
  return { ...functions, errnoAt: functions.__errno_location() }
}

// Kept, and never given to anybody: their addresses are handed to the kernel.
const [facts, name1, name2, dents] = [256, 65_536, 65_536, 262_144].map((size) => Buffer.allocUnsafeSlow(size)) as [
  Buffer,
  Buffer,
  Buffer,
  Buffer,
]
const [factsAt, name1At, name2At, dentsAt] = [facts, name1, name2, dents].map((buffer) =>
  ffi.getRawPointer(buffer),
) as [bigint, bigint, bigint, bigint]

/** @returns its address */
function named(name: string, buffer = name1, address = name1At): bigint {
  if (name.length >= buffer.length || name.includes('\0')) throw new Error('this cannot be a name')
  buffer[buffer.write(name, 0, 'latin1')] = 0
  return address
}

function errno(): number {
  return ffi.getInt32(libc().errnoAt)
}

function failed(call: string, name: string, code = errno()): Error {
  const text = getSystemErrorName(-code)
  return Object.assign(new Error(`${text}: ${call} '${Buffer.from(name, 'latin1').toString()}'`), { code: text })
}

/** Device, major and minor, and number of a mount in two halves. */
export type MountMark = readonly [number, number, number, number]

/** What statx says. One object for all calls: good until the next. */
export const found = {
  /** As in `struct statx`: 8 bytes inode, 8 size. */
  bytes: facts,
  get mode(): number {
    return facts.readUInt16LE(28)
  },
  get links(): number {
    return facts.readUInt32LE(16)
  },
  get uid(): number {
    return facts.readUInt32LE(20)
  },
  get gid(): number {
    return facts.readUInt32LE(24)
  },
  get sizeBytes(): number {
    return facts.readUInt32LE(40) + facts.readUInt32LE(44) * 2 ** 32
  },
  get allocatedBytes(): number {
    return (facts.readUInt32LE(48) + facts.readUInt32LE(52) * 2 ** 32) * 512
  },
  get changedSeconds(): number {
    return facts.readUInt32LE(96) + facts.readInt32LE(100) * 2 ** 32
  },
  get changedNanoseconds(): number {
    return facts.readUInt32LE(104)
  },
  /** Of a device file: major and minor, 4 bytes each. */
  get device(): Buffer {
    return facts.subarray(128, 136)
  },
  get inode(): bigint {
    return facts.readBigUInt64LE(32)
  },
  /** Device and number of the mount: the same for all folders of a file system (or subvolume) that is mounted as one. */
  get mount(): MountMark {
    return [facts.readUInt32LE(136), facts.readUInt32LE(140), facts.readUInt32LE(144), facts.readUInt32LE(148)]
  },
  isOn([major, minor, low, high]: MountMark): boolean {
    return (
      facts.readUInt32LE(144) === low &&
      facts.readUInt32LE(140) === minor &&
      facts.readUInt32LE(136) === major &&
      facts.readUInt32LE(148) === high
    )
  },
  /** For files: those of an overlay may have the devices of its layers. Old kernels do not number mounts. */
  isOnMount(mark: MountMark): boolean {
    const [, , low, high] = mark
    if (low === 0 && high === 0) return found.isOn(mark)
    return facts.readUInt32LE(144) === low && facts.readUInt32LE(148) === high
  },
}

/** Of the folder itself where the name is empty; of a link itself. False when there is no such thing (any more). */
export function look(folder: number, name: string): boolean {
  const flags = name === '' ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW
  if (libc().statx(folder, named(name), flags, STATX_MASK, factsAt) === 0) return true
  if (errno() === ENOENT) return false
  throw failed('statx', name)
}

/** Nothing when there is no folder (any more): a link in its place is none. */
export function openFolder(folder: number, name: string): number | undefined {
  const fd = openAt(folder, name, constants.O_RDONLY | constants.O_DIRECTORY)
  if (fd >= 0) return fd
  if (['ENOENT', 'ENOTDIR', 'ELOOP'].includes(getSystemErrorName(fd))) return undefined
  throw failed('open', name, -fd)
}

/** For reading, without waiting for whoever may be at the other end. Nothing when it is gone, or now a link or socket. */
export function openToRead(folder: number, name: string): number | undefined {
  const fd = openAt(folder, name, constants.O_RDONLY | constants.O_NONBLOCK)
  if (fd >= 0) return fd
  if (['ENOENT', 'ELOOP', 'ENXIO'].includes(getSystemErrorName(fd))) return undefined
  throw failed('open', name, -fd)
}

/** Does not leave a trace of having been read, where that may be had. @returns minus errno */
function openAt(folder: number, name: string, flags: number): number {
  const address = named(name)
  const all = flags | constants.O_NOFOLLOW | O_CLOEXEC
  const fd = libc().openat(folder, address, all | constants.O_NOATIME, 0)
  if (fd >= 0) return fd
  if (errno() !== EPERM) return -errno()
  const again = libc().openat(folder, address, all, 0)
  return again >= 0 ? again : -errno()
}

/** A new file for writing, the only one of its name. */
export function createFile(folder: number, name: string): number {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW | O_CLOEXEC
  const fd = libc().openat(folder, named(name), flags, 0o600)
  if (fd < 0) throw failed('create', name)
  return fd
}

/** Names in a folder just opened, in no order. */
export function namesIn(folder: number): string[] {
  const names: string[] = []
  for (;;) {
    const length = Number(libc().getdents64(folder, dentsAt, BigInt(dents.length)))
    if (length < 0) throw failed('getdents', `descriptor ${folder}`)
    if (length === 0) return names
    for (let at = 0; at < length; at += dents.readUInt16LE(at + 16)) {
      const name = dents.toString('latin1', at + 19, dents.indexOf(0, at + 19))
      if (name !== '.' && name !== '..') names.push(name)
    }
  }
}

/** Nothing when it is gone or no link any more. */
export function readLink(folder: number, name: string): string | undefined {
  const length = Number(libc().readlinkat(folder, named(name), name2At, BigInt(name2.length)))
  if (length >= 0) return name2.toString('latin1', 0, length)
  if (['ENOENT', 'EINVAL'].includes(getSystemErrorName(-errno()))) return undefined
  throw failed('readlink', name)
}

export function makeFolder(folder: number, name: string): void {
  if (libc().mkdirat(folder, named(name), 0o700) !== 0) throw failed('mkdir', name)
}

/** A pipe, socket or device, as the upper bits of the mode say. */
export function makeNode(folder: number, name: string, mode: number, major: number, minor: number): void {
  const [high, low] = [BigInt(major), BigInt(minor)]
  const device = (low & 0xffn) | ((high & 0xfffn) << 8n) | ((low & ~0xffn) << 12n) | ((high & ~0xfffn) << 32n)
  if (libc().mknodat(folder, named(name), mode, device) !== 0) throw failed('mknod', name)
}

export function makeLink(folder: number, name: string, target: string): void {
  if (libc().symlinkat(named(target, name2, name2At), folder, named(name)) !== 0) throw failed('symlink', name)
}

/** Another name for what may be anything but a folder, a link itself too. */
export function makeHardLink(fromFolder: number, from: string, folder: number, name: string): void {
  const [first, second] = [named(from), named(name, name2, name2At)]
  if (libc().linkat(fromFolder, first, folder, second, 0) !== 0) throw failed('link', name)
}

export function giveTo(folder: number, name: string, uid: number, gid: number): void {
  const flags = name === '' ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW
  if (libc().fchownat(folder, named(name), uid, gid, flags) !== 0) throw failed('chown', name)
}

/** Of what is no link. */
export function setMode(folder: number, name: string, mode: number): void {
  if (libc().fchmodat(folder, named(name), mode, 0) !== 0) throw failed('chmod', name)
}

// Two times of 16 bytes each: read, modified.
const times = Buffer.alloc(32)
const timesAt = ffi.getRawPointer(times)

/** Both times. @param name empty for what the descriptor stands for @param time 8 bytes seconds, 4 nanoseconds */
export function setTimes(folder: number, name: string, time: Buffer): void {
  time.copy(times, 0, 0, 12)
  time.copy(times, 16, 0, 12)
  const result =
    name === '' ? libc().futimens(folder, timesAt) : libc().utimensat(folder, named(name), timesAt, AT_SYMLINK_NOFOLLOW)
  if (result !== 0) throw failed('utimens', name)
}

/** Writes everything of the file system to its disk, and so makes sure that each later change leaves its time. */
export function settleFileSystem(fd: number): void {
  if (libc().syncfs(fd) !== 0) throw failed('syncfs', `descriptor ${fd}`)
}
