/**
 * The header of a `vma` archive: configurations of the guest, and its devices.
 *
 * It comes from elsewhere, so nothing in it is believed before its checksum holds, and no length after that
 * without a look at its bound.
 */
import { createHash } from 'node:crypto'
import { Fault } from '#base/fault.ts'
import { devicesMaximumBytes, fixedHeaderBytes, headerMaximumBytes } from './format.ts'

export interface VmaDevice {
  /** 1 to 255, as extents name it. */
  readonly id: number
  /** `drive-scsi0` */
  readonly name: string
  readonly sizeBytes: number
}

export interface VmaHeader {
  readonly uuid: Buffer
  /** Seconds since 1970. */
  readonly ctime: number
  /** By name: `qemu-server.conf`. */
  readonly configs: ReadonlyMap<string, Buffer>
  readonly devices: readonly VmaDevice[]
}

export const headerPlaces = {
  version: 4,
  uuid: 8,
  ctime: 24,
  checksum: 32,
  blobOffset: 48,
  blobSize: 52,
  headerSize: 56,
  configNames: 2044,
  configData: 3068,
  devices: 4096,
} as const
const entries = 256
export const deviceBytes = 32
const checksumBytes = 16

export function damaged(how: string): Fault {
  return new Fault('damaged', `the archive is damaged: ${how}`)
}

/** Bytes of the whole header, of which `fixed` is the beginning. @throws Fault `invalid`, `damaged` */
export function headerBytesIn(fixed: Buffer): number {
  if (fixed.length < 4 || fixed.toString('latin1', 0, 4) !== 'VMA\0') {
    throw new Fault('invalid', "this is no vma archive: it does not begin with 'VMA'")
  }
  if (fixed.length < fixedHeaderBytes) throw damaged('it ends within its header')
  const version = fixed.readUInt32BE(headerPlaces.version)
  if (version !== 1) throw new Fault('invalid', `the archive has vma version ${version}; only version 1 can be read`)
  const size = fixed.readUInt32BE(headerPlaces.headerSize)
  if (size < fixedHeaderBytes || size > headerMaximumBytes) throw damaged(`its header claims to have ${size} bytes`)
  return size
}

/** @throws Fault `damaged` saying what is wrong */
export function parseHeader(bytes: Buffer): VmaHeader {
  requireChecksum(bytes, 'the header')
  const blobs = blobsIn(bytes)
  const devices = devicesIn(bytes, blobs)
  if (devices.length === 0) throw damaged('it names no device')
  const total = devices.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  if (total > devicesMaximumBytes) throw damaged(`its devices claim to have ${total} bytes`)
  return {
    uuid: Buffer.from(bytes.subarray(headerPlaces.uuid, headerPlaces.uuid + 16)),
    ctime: Number(bytes.readBigInt64BE(headerPlaces.ctime)),
    configs: configsIn(bytes, blobs),
    devices,
  }
}

/** The MD5 of the bytes, taken while its own place is zero. */
export function checksumOf(bytes: Buffer, place: number): Buffer {
  const hash = createHash('md5')
  hash.update(bytes.subarray(0, place))
  hash.update(Buffer.alloc(checksumBytes))
  hash.update(bytes.subarray(place + checksumBytes))
  return hash.digest()
}

function requireChecksum(bytes: Buffer, what: string): void {
  const stored = bytes.subarray(headerPlaces.checksum, headerPlaces.checksum + checksumBytes)
  if (!checksumOf(bytes, headerPlaces.checksum).equals(stored)) throw damaged(`the checksum of ${what} does not match`)
}

/** Every blob by where it begins in the buffer. */
function blobsIn(bytes: Buffer): Map<number, Buffer> {
  const [offset, size] = [bytes.readUInt32BE(headerPlaces.blobOffset), bytes.readUInt32BE(headerPlaces.blobSize)]
  if (offset < fixedHeaderBytes || offset + size > bytes.length) throw damaged('its blobs lie outside of its header')
  const blobs = new Map<number, Buffer>()
  // The first byte is nobody's, so that no blob is at 0, which stands for none.
  for (let from = 1; from + 2 <= size;) {
    const length = bytes.readUInt16LE(offset + from)
    if (from + 2 + length > size) throw damaged('a blob of its header is cut off')
    blobs.set(from, bytes.subarray(offset + from + 2, offset + from + 2 + length))
    from += 2 + length
  }
  return blobs
}

function configsIn(bytes: Buffer, blobs: ReadonlyMap<number, Buffer>): Map<string, Buffer> {
  const configs = new Map<string, Buffer>()
  for (let entry = 0; entry < entries; entry += 1) {
    const [namePlace, place] = [headerPlaces.configNames, headerPlaces.configData].map((table) =>
      bytes.readUInt32BE(table + entry * 4),
    )
    if (!namePlace || !place) continue
    const [name, content] = [textAt(blobs, namePlace), blobs.get(place)]
    if (name === undefined || content === undefined) throw damaged(`configuration ${entry} lies outside of its header`)
    if (configs.has(name)) throw damaged(`it has two configurations called '${name}'`)
    configs.set(name, Buffer.from(content))
  }
  return configs
}

function devicesIn(bytes: Buffer, blobs: ReadonlyMap<number, Buffer>): VmaDevice[] {
  const devices: VmaDevice[] = []
  for (let id = 1; id < entries; id += 1) {
    const place = headerPlaces.devices + id * deviceBytes
    const [namePlace, size] = [bytes.readUInt32BE(place), bytes.readBigUInt64BE(place + 8)]
    if (namePlace === 0 && size === 0n) continue
    const name = textAt(blobs, namePlace)
    if (name === undefined) throw damaged(`device ${id} has no name`)
    if (size === 0n || size > BigInt(devicesMaximumBytes)) throw damaged(`device ${id} claims to have ${size} bytes`)
    if (devices.some((other) => other.name === name)) throw damaged(`it has two devices called '${name}'`)
    devices.push({ id, name, sizeBytes: Number(size) })
  }
  return devices
}

/** Names are short, of plain characters, and end with a zero byte. */
function textAt(blobs: ReadonlyMap<number, Buffer>, place: number): string | undefined {
  const blob = blobs.get(place)
  if (blob === undefined || blob.at(-1) !== 0) return undefined
  const text = blob.toString('latin1', 0, blob.length - 1)
  if (/^[A-Za-z0-9][\w.+-]{0,127}$/.test(text)) return text
  throw damaged('a name in its header is not of letters, digits and _ . + -')
}
