/**
 * What Linux keeps of a file beyond what Node can ask for: its extended attributes (access lists and capabilities are
 * among them), and where in it there is data and where a hole.
 */
import ffi from 'node:ffi'
import { Fault } from '#base/fault.ts'

/** The kernel's own limit, of all names together and of each value. Kept, because trees have many files. */
const mostBytes = 65_536
const [list, value] = [Buffer.allocUnsafeSlow(mostBytes), Buffer.allocUnsafeSlow(mostBytes)]
const [SEEK_DATA, SEEK_HOLE] = [3, 4]
const [ENXIO, EINVAL, ENODATA, ENOTSUP] = [6, 22, 61, 95]

let loaded: ReturnType<typeof load> | undefined
const libc = () => (loaded ??= load())

function load() {
  return ffi.dlopen('libc.so.6', {
    llistxattr: { arguments: ['pointer', 'pointer', 'u64'], return: 'i64' },
    lgetxattr: { arguments: ['pointer', 'pointer', 'pointer', 'u64'], return: 'i64' },
    lseek: { arguments: ['i32', 'i64', 'i32'], return: 'i64' },
    __errno_location: { arguments: [], return: 'pointer' },
  }).functions
}

function errno(): number {
  return ffi.getInt32(libc().__errno_location())
}

/** By name, in the order of names; of a link itself. None where the file system knows none. @throws Fault `failed` */
export function attributesOf(path: string | Buffer): Map<string, Buffer> {
  const file = Buffer.concat([Buffer.from(path as string), Buffer.alloc(1)])
  const length = Number(libc().llistxattr(file, list, BigInt(list.length)))
  if (length < 0) {
    if (errno() === ENOTSUP) return new Map()
    throw new Fault('failed', `the extended attributes of '${String(path)}' cannot be listed: errno ${errno()}`)
  }
  if (length === 0) return new Map()
  const names = list.toString('latin1', 0, length).split('\0').filter(Boolean).toSorted()
  const found = new Map<string, Buffer>()
  for (const name of names) {
    const size = Number(libc().lgetxattr(file, Buffer.from(`${name}\0`, 'latin1'), value, BigInt(value.length)))
    if (size >= 0) found.set(name, Buffer.from(value.subarray(0, size)))
    // It was taken away meanwhile.
    else if (errno() !== ENODATA) {
      throw new Fault('failed', `the attribute '${name}' of '${String(path)}' cannot be read: errno ${errno()}`)
    }
  }
  return found
}

export interface DataRange {
  readonly offset: number
  readonly length: number
}

/** Where there is data, in order; between and behind lie holes. Where the file system knows no holes, all of it. */
export function dataRangesOf(fd: number, sizeBytes: number): DataRange[] {
  const ranges: DataRange[] = []
  for (let at = 0; at < sizeBytes;) {
    const offset = Number(libc().lseek(fd, BigInt(at), SEEK_DATA))
    if (offset < 0) {
      if (errno() === ENXIO) break // Nothing but a hole up to the end.
      if (errno() === EINVAL) return [{ offset: 0, length: sizeBytes }]
      throw new Fault('failed', `a file cannot be searched for holes: errno ${errno()}`)
    }
    const end = Math.min(sizeBytes, Number(libc().lseek(fd, BigInt(offset), SEEK_HOLE)))
    if (end <= offset) break // It shrank meanwhile.
    ranges.push({ offset, length: end - offset })
    at = end
  }
  return ranges
}
