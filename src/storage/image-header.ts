/**
 * What an image's own header says, read without any tool.
 *
 * A qcow2 or vmdk image can name other files (a backing file, a data file, extents) which every program
 * that opens it opens too, with that program's rights. An image from outside, or one a guest's QEMU has
 * written to, may therefore read any file of the host through us. So before any tool of ours opens such
 * an image, its header is read here and an image that names another file is refused.
 */
import { type FileHandle, open } from 'node:fs/promises'
import { KiB } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import type { ImagePlace } from '#host/qemu/qemu-img.ts'

/** Enough for every fixed field of the formats read here. */
const HEADER_BYTES = 512
const QCOW2_MAGIC = 0x51_46_49_fb // 'QFI\xfb'
const VMDK_MAGIC = 'KDMV'
const VHD_MAGIC = 'conectix'
const SECTOR_BYTES = 512
/** Of an entry in the table of snapshots, before the parts whose lengths it tells. */
const SNAPSHOT_BYTES = 40
/** QEMU opens no image with more of them, or with more in an entry that it does not know. */
const mostSnapshots = 65_536
const mostExtraBytes = 1024
/** Descriptors are a few hundred bytes; QEMU reads no more than this of them. */
const DESCRIPTOR_BYTES = 64 * KiB

export interface Qcow2Header {
  readonly version: number
  readonly sizeBytes: number
  /** Where in the file the name of the backing file stands. */
  readonly backing: { readonly offset: number; readonly length: number } | undefined
  readonly hasDataFile: boolean
  readonly isEncrypted: boolean
  /** Stored dirty bitmaps that QEMU would use; others it passes over. */
  readonly hasBitmaps: boolean
  /** Marked by QEMU as damaged: writing to it would make it worse. */
  readonly isCorrupt: boolean
}

/** Reads the fixed part of a qcow2 header; nothing when these bytes do not begin one. */
export function readQcow2Header(bytes: Uint8Array): Qcow2Header | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.byteLength < 104 || view.getUint32(0) !== QCOW2_MAGIC) return undefined
  const version = view.getUint32(4)
  if (version < 2 || version > 3) return undefined
  const [incompatible, autoclear] = version === 3 ? [view.getBigUint64(72), view.getBigUint64(88)] : [0n, 0n]
  const backing = { offset: Number(view.getBigUint64(8)), length: view.getUint32(16) }
  return {
    version,
    sizeBytes: Number(view.getBigUint64(24)),
    backing: backing.offset === 0 && backing.length === 0 ? undefined : backing,
    hasDataFile: (incompatible & 4n) !== 0n,
    isEncrypted: view.getUint32(32) !== 0,
    hasBitmaps: (autoclear & 1n) !== 0n,
    isCorrupt: (incompatible & 2n) !== 0n,
  }
}

/**
 * Header of a qcow2 file, with the backing file as the image names it. That name is its guest's word: good for a list,
 * never for opening anything.
 * @throws Fault `damaged` when it has none.
 */
export async function qcow2HeaderOf(path: string): Promise<Qcow2Header & { readonly backingName?: string }> {
  await using file = await open(path, 'r')
  const header = readQcow2Header(await headBytes(file))
  if (!header) throw new Fault('damaged', `'${path}' is not a qcow2 image`)
  return header.backing ? { ...header, backingName: await textAt(file, header.backing) } : header
}

/**
 * Tags of the snapshots in a qcow2 image. Also for an image a guest has open: then the answer is of a moment ago.
 * @throws Fault `damaged` when its table of them cannot be one
 */
export async function snapshotTags(path: string): Promise<string[]> {
  await using file = await open(path, 'r')
  const head = await headBytes(file)
  if (!readQcow2Header(head)) throw new Fault('damaged', `'${path}' is not a qcow2 image`)
  const count = head.readUInt32BE(60)
  const damaged = () => new Fault('damaged', `image '${path}' has a damaged table of snapshots`)
  if (count > mostSnapshots) throw damaged()
  const tags: string[] = []
  for (let at = Number(head.readBigUInt64BE(64)); tags.length < count;) {
    const entry = await bytesAt(file, at, SNAPSHOT_BYTES)
    // Where its map lies; the beginning of the file is the header's.
    if (entry.length < SNAPSHOT_BYTES || entry.readBigUInt64BE(0) === 0n) throw damaged()
    const [idBytes, nameBytes, extraBytes] = [entry.readUInt16BE(12), entry.readUInt16BE(14), entry.readUInt32BE(36)]
    if (extraBytes > mostExtraBytes) throw damaged()
    const nameAt = at + SNAPSHOT_BYTES + extraBytes + idBytes
    const name = await bytesAt(file, nameAt, nameBytes)
    if (name.length < nameBytes) throw damaged()
    tags.push(name.toString('utf8'))
    // Each begins at a multiple of eight.
    at = Math.ceil((nameAt + nameBytes) / 8) * 8
  }
  return tags
}

/**
 * Throws unless the image stands on its own, or on exactly the backing file that the caller says it must.
 * @param backing as it is spelled in the image; absent: none
 * @throws Fault `invalid` naming what it refers to; `damaged` when it is not of that format
 */
export async function requireSelfContained(
  path: string,
  format: ImagePlace['format'],
  backing?: string,
  part?: ImagePlace['part'],
): Promise<void> {
  // Raw is taken literally: whatever it begins with is the disk's content.
  if (format === 'raw') return
  await using file = await open(path, 'r')
  const start = part?.offset ?? 0
  const head = await headBytes(file, start)
  if (format === 'vmdk') return await requireSingleVmdk({ path, file, start, head })
  if (format === 'vpc') {
    const end = part ? start + part.sizeBytes : (await file.stat()).size
    return requireSingleVhd({ path, head, foot: await headBytes(file, Math.max(start, end - HEADER_BYTES)) })
  }
  const header = readQcow2Header(head)
  if (!header) throw new Fault('damaged', `'${path}' is not a qcow2 image`)
  const named = header.backing && (await textAt(file, header.backing, start))
  if (named !== undefined && named !== backing) throw foreign(path, `the backing file '${named}'`)
  if (named === undefined && backing !== undefined) {
    throw new Fault('damaged', `image '${path}' is no longer based on '${backing}'`)
  }
  if (header.hasDataFile) throw foreign(path, 'an external data file')
  if (header.isEncrypted) throw new Fault('invalid', `image '${path}' is encrypted and cannot be read here`)
  if (header.isCorrupt) {
    throw new Fault('damaged', `image '${path}' is marked as corrupt`, {
      remedy: 'Repair a copy of it with `qemu-img check -r all`, then use that.',
    })
  }
}

/** The refusal of an image that names another file. */
export function foreign(path: string, what: string): Fault {
  return new Fault('invalid', `image '${path}' refers to ${what}; only images that stand on their own are accepted`, {
    remedy: 'Flatten it where it comes from: `qemu-img convert -O qcow2 IMAGE FLAT.qcow2`.',
  })
}

interface Opened {
  readonly path: string
  readonly file: FileHandle
  /** Where the image begins in its file. */
  readonly start: number
  readonly head: Buffer
}

async function requireSingleVmdk({ path, file, start, head }: Opened): Promise<void> {
  if (head.toString('latin1', 0, 4) !== VMDK_MAGIC) {
    // A text descriptor is nothing but a list of other files.
    if (head.toString('latin1').startsWith('# Disk DescriptorFile')) throw foreign(path, 'the files it lists')
    throw new Fault('damaged', `'${path}' is not a sparse vmdk image`)
  }
  // Capacity 0 means: the true layout is an embedded list of files.
  if (head.length < 44 || head.readBigUInt64LE(12) === 0n) throw foreign(path, 'the files it lists')
  const [offset, length] = [head.readBigUInt64LE(28), head.readBigUInt64LE(36)].map((sectors) => Number(sectors))
  if (!offset || !length) return
  const bytes = Math.min(length * SECTOR_BYTES, DESCRIPTOR_BYTES)
  const descriptor = (await bytesAt(file, start + offset * SECTOR_BYTES, bytes)).toString('latin1')
  const parent = /^\s*parentFileNameHint\s*=\s*"?([^"\r\n]*)/im.exec(descriptor)?.[1]
  if (parent !== undefined) throw foreign(path, `the parent '${printable(parent)}'`)
}

function requireSingleVhd({ path, head, foot }: { path: string; head: Buffer; foot: Buffer }): void {
  const footer = [head, foot].find((bytes) => bytes.toString('latin1', 0, 8) === VHD_MAGIC)
  if (!footer || footer.length < 64) throw new Fault('damaged', `'${path}' is not a vhd image`)
  // 2 fixed, 3 dynamic, 4 what differs from a parent.
  if (footer.readUInt32BE(60) === 4) throw foreign(path, 'a parent')
}

async function headBytes(file: FileHandle, start = 0): Promise<Buffer> {
  return bytesAt(file, start, HEADER_BYTES)
}

async function bytesAt(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  if (!Number.isSafeInteger(offset)) return Buffer.alloc(0)
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, offset)
  return buffer.subarray(0, bytesRead)
}

/** A name inside an image, for a message: bounded and printable. */
async function textAt(file: FileHandle, at: { offset: number; length: number }, start = 0): Promise<string> {
  if (!Number.isSafeInteger(start + at.offset)) return '?'
  return printable((await bytesAt(file, start + at.offset, Math.min(at.length, 1023))).toString('utf8'))
}

function printable(text: string): string {
  return text.slice(0, 1023).replaceAll(/[^\x20-\x7e]/g, '?')
}
