/** Two names change places in one act of the kernel: at every moment each of them leads to something whole. */
import ffi from 'node:ffi'
import { Fault } from '#base/fault.ts'

const AT_FDCWD = -100
const RENAME_EXCHANGE = 2

let loaded: ReturnType<typeof load> | undefined
const libc = () => (loaded ??= load())

function load() {
  return ffi.dlopen('libc.so.6', {
    renameat2: { arguments: ['i32', 'pointer', 'i32', 'pointer', 'u32'], return: 'i32' },
    __errno_location: { arguments: [], return: 'pointer' },
  }).functions
}

/** Both must be there, on one file system. @throws Fault `failed` */
export function exchange(one: string, other: string): void {
  const [first, second] = [Buffer.from(`${one}\0`), Buffer.from(`${other}\0`)]
  if (libc().renameat2(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE) === 0) return
  const code = ffi.getInt32(libc().__errno_location())
  throw new Fault('failed', `'${one}' and '${other}' cannot change places: errno ${code}`)
}
