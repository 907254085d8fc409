/** An extent of a `vma` archive: which blocks of which devices follow, and where they belong. */
import type { Fault } from '#base/fault.ts'
import {
  blockBytes,
  blocksPerCluster,
  clusterBytes,
  clustersPerExtent,
  extentHeaderBytes,
  memoryDevice,
} from './format.ts'
import { checksumOf, damaged, type VmaDevice } from './header.ts'

export interface ClusterEntry {
  readonly device: number
  readonly cluster: number
  /** Bit n: block n of the cluster is stored; the others are zero. */
  readonly mask: number
}

export interface ExtentHeader {
  /** Of the blocks behind the header. */
  readonly dataBytes: number
  readonly entries: readonly ClusterEntry[]
}

/** Bytes next to each other, in the extent as on the device. */
export interface Piece {
  readonly device: VmaDevice
  /** On the device. */
  readonly offset: number
  readonly bytes: Buffer
}

const wholeCluster = 2 ** blocksPerCluster - 1
export const extentPlaces = { blocks: 6, uuid: 8, checksum: 24, entries: 40 } as const

/** @param number counts from 1, for messages. @throws Fault `damaged` saying what is wrong */
export function parseExtentHeader(bytes: Buffer, uuid: Buffer, number: number): ExtentHeader {
  const wrong = (how: string): Fault => damaged(`extent ${number} ${how}`)
  if (bytes.toString('latin1', 0, 4) !== 'VMAE') throw wrong("does not begin with 'VMAE'")
  if (
    !checksumOf(bytes.subarray(0, extentHeaderBytes), extentPlaces.checksum).equals(
      bytes.subarray(extentPlaces.checksum, extentPlaces.entries),
    )
  ) {
    throw wrong('has a checksum that does not match')
  }
  if (!bytes.subarray(extentPlaces.uuid, extentPlaces.checksum).equals(uuid)) throw wrong('belongs to another archive')
  const entries: ClusterEntry[] = []
  let blocks = 0
  for (let entry = 0; entry < clustersPerExtent; entry += 1) {
    const place = extentPlaces.entries + entry * 8
    const device = bytes.readUInt8(place + 3)
    if (device === 0) continue
    const mask = bytes.readUInt16BE(place)
    entries.push({ device, cluster: bytes.readUInt32BE(place + 4), mask })
    blocks += bitsIn(mask)
  }
  if (bytes.readUInt16BE(extentPlaces.blocks) !== blocks)
    throw wrong(`lists ${blocks} blocks and claims to have another number`)
  return { dataBytes: blocks * blockBytes, entries }
}

/**
 * Where the blocks behind a header belong; what is neighbours stays together.
 * @throws Fault `damaged` for a block of no device, or behind its end
 */
export function piecesOf(
  { entries }: ExtentHeader,
  data: Buffer,
  devices: ReadonlyMap<number, VmaDevice>,
  number: number,
): Piece[] {
  const pieces: Piece[] = []
  let [from, to] = [0, 0] // of the neighbours in the extent
  let open: { device: VmaDevice; offset: number } | undefined
  const close = () => {
    if (open) pieces.push({ ...open, bytes: clipped(open, data.subarray(from, to)) })
    from = to
    open = undefined
  }
  const skip = (blocks: number) => {
    close()
    to += blocks * blockBytes
    from = to
  }
  for (const { device: id, cluster, mask } of entries) {
    const device = devices.get(id)
    if (!device) throw damaged(`extent ${number} has data of device ${id}, which its header does not name`)
    if (device.name === memoryDevice) {
      skip(bitsIn(mask))
      continue
    }
    if (cluster * clusterBytes >= device.sizeBytes) throw behind(device, number)
    for (let block = 0; block < blocksPerCluster; block += 1) {
      if ((mask & (1 << block)) === 0) continue
      const offset = cluster * clusterBytes + block * blockBytes
      if (offset >= device.sizeBytes) {
        // The last cluster may be there whole though the device ends within it.
        if (mask !== wholeCluster) throw behind(device, number)
        skip(1)
        continue
      }
      if (open?.device !== device || offset - open.offset !== to - from) {
        close()
        open = { device, offset }
      }
      to += blockBytes
    }
  }
  close()
  return pieces
}

function behind({ name }: VmaDevice, number: number): Fault {
  return damaged(`extent ${number} has data behind the end of device ${name}`)
}

/** The last block of a device may be longer than what is left of it. */
function clipped({ device, offset }: Omit<Piece, 'bytes'>, bytes: Buffer): Buffer {
  return bytes.subarray(0, Math.min(bytes.length, device.sizeBytes - offset))
}

function bitsIn(mask: number): number {
  let count = 0
  for (let rest = mask; rest !== 0; rest &= rest - 1) count += 1
  return count
}
