/**
 * Opens what a path names inside a directory as if that directory were the root: links in it, absolute or not, and
 * `..` lead back into it and never out, whoever changes them meanwhile. The kernel does this (openat2); resolving a
 * path ourselves first would leave a moment between looking and opening.
 *
 * What is opened is only a handle (O_PATH): no pipe waits, no device notices. `/proc/self/fd/<handle>` names the very
 * thing for every other call, and is no link that could be changed.
 */
import { closeSync, constants, openSync } from 'node:fs'
import ffi from 'node:ffi'
import { Fault } from '#base/fault.ts'

const SYS_openat2 = 437n
/** No resolving of links of /proc, and the directory as root. */
const RESOLVE_NO_MAGICLINKS_IN_ROOT = 0x12n
const O_PATH = 0o10000000
const O_CLOEXEC = 0o2000000
const [ENOENT, EAGAIN, ENOTDIR, ENOSYS, ELOOP] = [2, 11, 20, 38, 40]

let loaded: ReturnType<typeof load> | undefined
const libc = () => (loaded ??= load())

function load() {
  return ffi.dlopen('libc.so.6', {
    syscall: { arguments: ['i64', 'i64', 'pointer', 'pointer', 'u64'], return: 'i64' },
    __errno_location: { arguments: [], return: 'pointer' },
  }).functions
}

export interface Handle extends Disposable {
  readonly fd: number
  /** `/proc/self/fd/20`: good for as long as the handle is. */
  readonly path: string
}

export function openDirectory(path: string): Handle {
  return handleOf(openSync(path, O_PATH | constants.O_DIRECTORY))
}

/**
 * Nothing when there is no such thing, also for a link that leads nowhere.
 * @param root handle of the directory
 * @throws Fault `unavailable` on kernels before 5.6, `failed`
 */
export function openWithin(root: number, path: string): Handle | undefined {
  const how = Buffer.alloc(24)
  how.writeBigUInt64LE(BigInt(O_PATH | O_CLOEXEC), 0)
  how.writeBigUInt64LE(RESOLVE_NO_MAGICLINKS_IN_ROOT, 16)
  const name = Buffer.from(`${path}\0`)
  // Somebody moves a directory on the way at this moment: the kernel asks to try again.
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const fd = Number(libc().syscall(SYS_openat2, BigInt(root), name, how, BigInt(how.length)))
    if (fd >= 0) return handleOf(fd)
    const code = ffi.getInt32(libc().__errno_location())
    if (code === ENOENT || code === ENOTDIR) return undefined
    if (code === EAGAIN) continue
    if (code === ENOSYS) throw new Fault('unavailable', 'the kernel of this node has no openat2: containers need it')
    if (code === ELOOP) throw new Fault('failed', `'${path}' leads through links that go round in circles`)
    throw new Fault('failed', `'${path}' cannot be opened: errno ${code}`)
  }
  throw new Fault('conflict', `'${path}' cannot be opened: somebody goes on moving directories on the way`)
}

function handleOf(fd: number): Handle {
  return { fd, path: `/proc/self/fd/${fd}`, [Symbol.dispose]: () => closeSync(fd) }
}
