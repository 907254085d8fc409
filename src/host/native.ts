/**
 * The things Linux offers only through system calls that Node has no word for: attaching to a tap device,
 * asking who is at the other end of a unix socket, making a pseudo terminal, and asking for a ring of requests. All go
 * through libc by `node:ffi`.
 *
 * Invariant: a tap is never made persistent. It lives exactly as long as somebody holds its descriptor,
 * so a QEMU that dies, by whatever cause, takes its tap with it and nothing is left to clean up. The
 * tempting way, `ip tuntap add`, leaves a tap behind after every kill -9.
 */
import { closeSync, constants, openSync, readFileSync } from 'node:fs'
import ffi from 'node:ffi'
import { Fault } from '#base/fault.ts'
import { codeOf } from './files.ts'

const TUNSETIFF = 0x4004_54can
const TUNSETOWNER = 0x4004_54ccn
/** IFF_TAP | IFF_NO_PI | IFF_VNET_HDR: whole Ethernet frames, with the header that carries offloads. */
const TAP_FLAGS = 0x5002
const NAME_BYTES = 16
const TIOCSPTLCK = 0x4004_5431n
const TIOCGPTN = 0x8004_5430n
const TIOCSWINSZ = 0x5414n
const SOL_SOCKET = 1
const SO_PEERCRED = 17
const IO_URING_SETUP = 425n
/** Size of `struct io_uring_params`. */
const RING_PARAMS_BYTES = 120
const EBUSY = 16
const EINVAL = 22

/** Loaded at first use, so that a process that needs neither (the CLI, for one) never pays for it. */
let loaded: ReturnType<typeof load> | undefined
const libc = () => (loaded ??= load())

function load() {
  return ffi.dlopen('libc.so.6', {
    ioctl: { arguments: ['i32', 'u64', 'pointer'], return: 'i32' },
    getsockopt: { arguments: ['i32', 'i32', 'i32', 'pointer', 'pointer'], return: 'i32' },
    fcntl: { arguments: ['i32', 'i32', 'u64'], return: 'i32' },
    syscall: { arguments: ['i64', 'u32', 'pointer'], return: 'i64' },
    __errno_location: { arguments: [], return: 'pointer' },
  }).functions
}

/** Read at once after a call that failed; anything in between may overwrite it. */
function errno(): number {
  return ffi.getInt32(libc().__errno_location())
}

export interface TapOptions {
  /** Only this uid (and root) may attach to the tap again by name. Default: root alone. */
  readonly owner?: number
}

/**
 * Creates the tap `name` in this process's network namespace and returns its descriptor, which the
 * caller closes once the program that inherits it has started. The tap vanishes with its last descriptor.
 * @throws Fault `conflict` when somebody else holds a tap of this name, `unavailable` when the kernel has
 *   no tap devices, `invalid` for a name that is longer than 15 bytes or belongs to another kind of link.
 */
export function openTap(name: string, options: TapOptions = {}): number {
  if (!/^[A-Za-z0-9._-]{1,15}$/.test(name)) throw new Fault('invalid', `'${name}' is no name for a network interface`)
  const fd = openTun()
  try {
    const request = Buffer.alloc(40)
    request.write(name, 0, NAME_BYTES - 1, 'latin1')
    request.writeUInt16LE(TAP_FLAGS, NAME_BYTES)
    if (libc().ioctl(fd, TUNSETIFF, request) !== 0) throw tapFault(name, errno())
    if (options.owner !== undefined) setOwner(fd, name, options.owner)
    return fd
  } catch (fault) {
    closeSync(fd)
    throw fault
  }
}

function openTun(): number {
  try {
    return openSync('/dev/net/tun', 'r+')
  } catch (cause) {
    throw new Fault('unavailable', `/dev/net/tun cannot be opened (${codeOf(cause)}): guests get no network`, {
      cause,
      remedy: 'Load the kernel module tun, and run as root.',
    })
  }
}

/** Here the kernel takes a plain number where others take a pointer; on a 64-bit machine both are one register. */
function setOwner(fd: number, name: string, owner: number): void {
  const { ioctl } = ffi.dlopen('libc.so.6', {
    ioctl: { arguments: ['i32', 'u64', 'u64'], return: 'i32' },
  }).functions
  if (ioctl(fd, TUNSETOWNER, BigInt(owner)) !== 0) throw tapFault(name, errno())
}

function tapFault(name: string, code: number): Fault {
  if (code === EBUSY) {
    return new Fault('conflict', `tap '${name}' is in use by another process`, {
      remedy: 'A guest that was not ended may still hold it: `ip -details link show` names it.',
    })
  }
  if (code === EINVAL) return new Fault('invalid', `'${name}' exists and is not a tap`)
  return new Fault('failed', `tap '${name}' could not be created: errno ${code}`)
}

const F_SETLEASE = 1024
const [F_RDLCK, F_UNLCK] = [0n, 2n]

/**
 * True when nobody has the file open for writing. Whoever must not write to it later is kept from opening it by
 * other means. False also where the file system has no leases, and nothing can be said.
 * @param fd open for reading alone, by its owner or root
 */
export function hasNoWriter(fd: number): boolean {
  // The kernel gives a read lease only on a file that is open for writing nowhere.
  if (libc().fcntl(fd, F_SETLEASE, F_RDLCK) !== 0) return false
  libc().fcntl(fd, F_SETLEASE, F_UNLCK)
  return true
}

export interface PeerCredentials {
  readonly pid: number
  readonly uid: number
  readonly gid: number
}

/**
 * Who connected, as the kernel recorded it at connect time; the peer cannot forge it.
 * @param socketFd descriptor of a connected unix socket
 */
export function peerCredentials(socketFd: number): PeerCredentials {
  const credentials = Buffer.alloc(12)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(credentials.length)
  if (libc().getsockopt(socketFd, SOL_SOCKET, SO_PEERCRED, credentials, length) !== 0) {
    throw new Fault('failed', `descriptor ${socketFd} is no connected unix socket (errno ${errno()})`)
  }
  return { pid: credentials.readInt32LE(0), uid: credentials.readUInt32LE(4), gid: credentials.readUInt32LE(8) }
}

export interface PseudoTerminal {
  /** The end of whoever shows the terminal. When its last descriptor closes, the programs on it hear SIGHUP. */
  readonly master: number
  /** The end of the programs, as their standard input, output and error. */
  readonly slave: number
  /** `/dev/pts/3` */
  readonly path: string
}

/** Makes a pseudo terminal; the caller closes both descriptors. @throws Fault `unavailable` when there are none */
export function openPseudoTerminal(): PseudoTerminal {
  // Without O_NOCTTY a daemon that leads its session would make it its own.
  const mode = constants.O_RDWR | constants.O_NOCTTY
  let master: number | undefined
  try {
    master = openSync('/dev/ptmx', mode)
    const [unlocked, number] = [Buffer.alloc(4), Buffer.alloc(4)]
    if (libc().ioctl(master, TIOCSPTLCK, unlocked) !== 0 || libc().ioctl(master, TIOCGPTN, number) !== 0) {
      throw new Fault('failed', `/dev/ptmx is no multiplexer of terminals (errno ${errno()})`)
    }
    const path = `/dev/pts/${number.readUInt32LE()}`
    return { master, slave: openSync(path, mode), path }
  } catch (cause) {
    if (master !== undefined) closeSync(master)
    throw new Fault('unavailable', 'no pseudo terminal could be opened', {
      cause,
      remedy: 'See whether /dev/pts is mounted and how many terminals are open (/proc/sys/kernel/pty/nr and max).',
    })
  }
}

/** Tells the programs on a pseudo terminal how large it is now. */
export function resizePseudoTerminal(master: number, columns: number, rows: number): void {
  const size = Buffer.alloc(8)
  size.writeUInt16LE(rows, 0)
  size.writeUInt16LE(columns, 2)
  if (libc().ioctl(master, TIOCSWINSZ, size) !== 0) {
    throw new Fault('failed', `the terminal could not be given its size (errno ${errno()})`)
  }
}

/**
 * Whether programs without rights may queue what they read and write in rings they share with the kernel (io_uring).
 * Hardened machines keep those to root or to nobody, and sandboxes of containers refuse them as a whole.
 * @param setting file in which the administrator says who may
 */
export function mayUseRings(setting = '/proc/sys/kernel/io_uring_disabled'): boolean {
  if (!isForAll(setting)) return false
  const fd = Number(libc().syscall(IO_URING_SETUP, 1, Buffer.alloc(RING_PARAMS_BYTES)))
  if (fd < 0) return false
  closeSync(fd)
  return true
}

/** As the administrator says; kernels before 6.6 have no such setting. */
function isForAll(setting: string): boolean {
  try {
    return readFileSync(setting, 'latin1').trim() === '0'
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return true
    throw cause
  }
}
