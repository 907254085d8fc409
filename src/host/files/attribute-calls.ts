/**
 * The extended attributes of a file as one run of bytes, read from and written to an open file, or one that stands in
 * an open folder. Access lists and capabilities are among them.
 *
 * In the order of their names, for each: 1 byte length of the name, 4 bytes length of the value, name, value.
 */
import ffi from 'node:ffi'
import { getSystemErrorName } from 'node:util'
import { Fault } from '#base/fault.ts'

/** The kernel's own limit, of all names together and of each value. */
const mostBytes = 65_536
/** Of one file, all together. A file system that holds more is not one a container needs. */
export const attributesMaximumBytes = 4 * 2 ** 20

let loaded: ReturnType<typeof load> | undefined
const libc = () => (loaded ??= load())

function load() {
  const { functions } = ffi.dlopen('libc.so.6', {
    flistxattr: { arguments: ['i32', 'pointer', 'u64'], return: 'i64' },
    fgetxattr: { arguments: ['i32', 'pointer', 'pointer', 'u64'], return: 'i64' },
    fsetxattr: { arguments: ['i32', 'pointer', 'pointer', 'u64', 'i32'], return: 'i32' },
    llistxattr: { arguments: ['pointer', 'pointer', 'u64'], return: 'i64' },
    lgetxattr: { arguments: ['pointer', 'pointer', 'pointer', 'u64'], return: 'i64' },
    lsetxattr: { arguments: ['pointer', 'pointer', 'pointer', 'u64', 'i32'], return: 'i32' },
    __errno_location: { arguments: [], return: 'pointer' },
  })
  return { ...functions, errnoAt: functions.__errno_location() }
}

const [list, value, path] = [mostBytes, mostBytes, mostBytes].map((size) => Buffer.allocUnsafeSlow(size)) as [
  Buffer,
  Buffer,
  Buffer,
]
const [listAt, valueAt, pathAt] = [list, value, path].map((buffer) => ffi.getRawPointer(buffer)) as [
  bigint,
  bigint,
  bigint,
]
const most = BigInt(mostBytes)
const none = Buffer.alloc(0)

export interface Attribute {
  /** Each character a byte. */
  readonly name: string
  readonly value: Buffer
}

/** An open file, or a name in an open folder (of a link itself; without following one). */
export type FileOrName = number | { readonly folder: number; readonly name: string }

/** None where the file system knows none, or the file is gone. */
export function readAttributes(of: FileOrName): Buffer {
  const length = Number(
    typeof of === 'number' ? libc().flistxattr(of, listAt, most) : libc().llistxattr(placed(of), listAt, most),
  )
  if (length === 0) return none
  if (length < 0) {
    if (['ENOTSUP', 'EOPNOTSUPP', 'ENOENT'].includes(code())) return none
    throw new Fault('failed', `the extended attributes of a file cannot be listed: ${code()}`)
  }
  const names = list.toString('latin1', 0, length).split('\0').filter(Boolean).toSorted()
  const parts: Buffer[] = []
  let bytes = 0
  for (const name of names) {
    const found = valueOf(of, name)
    if (found === undefined) continue
    parts.push(encoded({ name, value: found }))
    bytes += 5 + name.length + found.length
    if (bytes > attributesMaximumBytes) {
      throw new Fault('too-large', `a file has more than ${attributesMaximumBytes} bytes of extended attributes`)
    }
  }
  return Buffer.concat(parts)
}

function valueOf(of: FileOrName, name: string): Buffer | undefined {
  const key = Buffer.from(`${name}\0`, 'latin1')
  const size = Number(
    typeof of === 'number'
      ? libc().fgetxattr(of, key, valueAt, most)
      : libc().lgetxattr(placed(of), key, valueAt, most),
  )
  if (size >= 0) return value.subarray(0, size)
  // It was taken away meanwhile, or is of a kind that is listed and not told.
  if (['ENODATA', 'ENOENT', 'ENOTSUP', 'EOPNOTSUPP'].includes(code())) return undefined
  throw new Fault('failed', `the attribute '${name}' of a file cannot be read: ${code()}`)
}

/** What file systems say that have no such attributes, no such large ones, or none for whoever asks. */
const refusals = ['ENOTSUP', 'EOPNOTSUPP', 'EPERM', 'EINVAL', 'ENOSPC', 'E2BIG', 'ERANGE']

/** False where the file system does not take it. */
export function writeAttribute(of: FileOrName, { name, value: content }: Attribute): boolean {
  const key = Buffer.from(`${name}\0`, 'latin1')
  content.copy(value)
  const size = BigInt(content.length)
  const result =
    typeof of === 'number'
      ? libc().fsetxattr(of, key, valueAt, size, 0)
      : libc().lsetxattr(placed(of), key, valueAt, size, 0)
  if (result === 0) return true
  if (refusals.includes(code())) return false
  const error = new Error(`${code()}: the attribute '${name}' cannot be set`)
  throw Object.assign(error, { code: code() })
}

export function encoded({ name, value: content }: Attribute): Buffer {
  const bytes = Buffer.allocUnsafe(5 + name.length + content.length)
  bytes.writeUInt8(name.length, 0)
  bytes.writeUInt32LE(content.length, 1)
  bytes.write(name, 5, 'latin1')
  bytes.set(content, 5 + name.length)
  return bytes
}

/** The attributes in such a run; their values are views of it. Nothing when it is none. */
export function parseAttributes(bytes: Buffer): Attribute[] | undefined {
  const attributes: Attribute[] = []
  for (let at = 0; at < bytes.length;) {
    if (at + 5 > bytes.length) return undefined
    const [nameEnd, length] = [at + 5 + bytes.readUInt8(at), bytes.readUInt32LE(at + 1)]
    const end = nameEnd + length
    if (end > bytes.length || length > mostBytes || nameEnd === at + 5) return undefined
    const name = bytes.toString('latin1', at + 5, nameEnd)
    if (name.includes('\0')) return undefined
    attributes.push({ name, value: bytes.subarray(nameEnd, end) })
    at = end
  }
  return attributes
}

function placed({ folder, name }: { readonly folder: number; readonly name: string }): bigint {
  const text = `/proc/self/fd/${folder}/${name}`
  path[path.write(text, 0, 'latin1')] = 0
  return pathAt
}

function code(): string {
  return getSystemErrorName(-ffi.getInt32(libc().errnoAt))
}
