/** Names that change in one act of the kernel: at every moment each of them leads to something whole, and nothing is lost. */
import { link, unlink } from 'node:fs/promises'
import ffi from 'node:ffi'
import { Fault } from '#base/fault.ts'
import { codeOf } from '../files.ts'

const AT_FDCWD = -100
const [RENAME_NOREPLACE, RENAME_EXCHANGE] = [1, 2]
const [EEXIST, EINVAL] = [17, 22]

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

/** Gives a file another name, unless something has that already: then false. @throws Fault `failed`, or as `link` does */
export async function renameNew(from: string, to: string): Promise<boolean> {
  const [first, second] = [Buffer.from(`${from}\0`), Buffer.from(`${to}\0`)]
  if (libc().renameat2(AT_FDCWD, first, AT_FDCWD, second, RENAME_NOREPLACE) === 0) return true
  const code = ffi.getInt32(libc().__errno_location())
  if (code === EEXIST) return false
  if (code !== EINVAL) throw new Fault('failed', `'${from}' cannot be renamed to '${to}': errno ${code}`)
  // Over the network a file system may not know that; a second name comes down to the same.
  try {
    await link(from, to)
  } catch (cause) {
    if (codeOf(cause) === 'EEXIST') return false
    throw cause
  }
  await unlink(from)
  return true
}
