/**
 * Writes the disks of a backup as a `vma` archive (docs/formats/vma.md), for whoever wants to take a virtual machine
 * elsewhere. Devices come one after the other; never more than an extent is in memory.
 */
import { isZero } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import type { BackupReader } from '#datastore/restore/reader.ts'
import { readAhead } from '#datastore/window.ts'
import {
  blockBytes,
  blocksPerCluster,
  clusterBytes,
  clustersPerExtent,
  extentHeaderBytes,
  fixedHeaderBytes,
  headerMaximumBytes,
} from './format.ts'
import { extentPlaces } from './extent.ts'
import { checksumOf, deviceBytes, headerPlaces } from './header.ts'

export interface VmaContent {
  /** 16 bytes. */
  readonly uuid: Buffer
  /** Seconds since 1970. */
  readonly ctime: number
  /** By name: `qemu-server.conf`. */
  readonly configs: ReadonlyMap<string, Buffer>
  /** Disks of the backup in their order, each with the name it has in the archive. */
  readonly devices: readonly { readonly disk: string; readonly name: string }[]
}

const runsAhead = 4
const devicesMaximum = 255

/** @throws Fault `too-large` for what the format cannot say; `damaged` naming the chunk */
export async function* vmaOf(reader: BackupReader, content: VmaContent): AsyncGenerator<Buffer> {
  yield headerOf(reader, content)
  const extent = new Extent(content.uuid)
  for (const [index, { disk }] of content.devices.entries()) {
    const { sizeBytes } = reader.disk(disk)
    let next = 0
    const clustersUpTo = function* (cluster: number): Generator<Buffer> {
      for (; next < cluster; next += 1) yield* extent.add(index + 1, next, nothing)
    }
    for await (const parts of readAhead(reader.runs(disk), runsAhead, (read) => read())) {
      for (const { offset, content: bytes } of parts) {
        yield* clustersUpTo(offset / clusterBytes)
        for (let at = 0; at < bytes.length; at += clusterBytes, next += 1) {
          yield* extent.add(index + 1, next, bytes.subarray(at, at + clusterBytes))
        }
      }
    }
    yield* clustersUpTo(Math.ceil(sizeBytes / clusterBytes))
  }
  yield* extent.end()
}

const nothing = Buffer.alloc(0)

/** Clusters on their way into the archive, until there are as many as an extent holds. */
class Extent {
  readonly #uuid: Buffer
  #head = Buffer.alloc(extentHeaderBytes)
  #clusters = 0
  #blocks: Buffer[] = []

  constructor(uuid: Buffer) {
    this.#uuid = uuid
  }

  /** @param bytes of the cluster; what is missing at its end is zero */
  *add(device: number, cluster: number, bytes: Buffer): Generator<Buffer> {
    let mask = 0
    for (let block = 0; block < blocksPerCluster; block += 1) {
      const part = bytes.subarray(block * blockBytes, (block + 1) * blockBytes)
      if (part.length === 0 || isZero(part)) continue
      mask |= 1 << block
      this.#blocks.push(part.length === blockBytes ? part : Buffer.concat([part], blockBytes))
    }
    const place = extentPlaces.entries + this.#clusters * 8
    this.#head.writeUInt16BE(mask, place)
    this.#head.writeUInt8(device, place + 3)
    this.#head.writeUInt32BE(cluster, place + 4)
    this.#clusters += 1
    if (this.#clusters === clustersPerExtent) yield* this.end()
  }

  *end(): Generator<Buffer> {
    if (this.#clusters === 0) return
    const head = this.#head
    head.write('VMAE', 'latin1')
    head.writeUInt16BE(this.#blocks.length, extentPlaces.blocks)
    this.#uuid.copy(head, extentPlaces.uuid)
    checksumOf(head, extentPlaces.checksum).copy(head, extentPlaces.checksum)
    yield Buffer.concat([head, ...this.#blocks])
    this.#head = Buffer.alloc(extentHeaderBytes)
    this.#clusters = 0
    this.#blocks = []
  }
}

function headerOf(reader: BackupReader, { uuid, ctime, configs, devices }: VmaContent): Buffer {
  if (devices.length > devicesMaximum || configs.size > devicesMaximum) {
    throw new Fault('too-large', `a vma archive has at most ${devicesMaximum} disks`)
  }
  // The first byte is nobody's, so that no blob is at 0, which stands for none.
  const blobs: Buffer[] = [Buffer.alloc(1)]
  let blobBytes = 1
  const put = (content: Buffer): number => {
    if (content.length >= 2 ** 16) throw new Fault('too-large', 'the configuration is too long for a vma archive')
    const [place, length] = [blobBytes, Buffer.alloc(2)]
    length.writeUInt16LE(content.length)
    blobs.push(length, content)
    blobBytes += 2 + content.length
    return place
  }
  const fixed = Buffer.alloc(fixedHeaderBytes)
  fixed.write('VMA\0', 'latin1')
  fixed.writeUInt32BE(1, headerPlaces.version)
  uuid.copy(fixed, headerPlaces.uuid)
  fixed.writeBigInt64BE(BigInt(ctime), headerPlaces.ctime)
  for (const [index, [name, content]] of [...configs].entries()) {
    fixed.writeUInt32BE(put(Buffer.from(`${name}\0`)), headerPlaces.configNames + 4 * index)
    fixed.writeUInt32BE(put(content), headerPlaces.configData + 4 * index)
  }
  for (const [index, { disk, name }] of devices.entries()) {
    const place = headerPlaces.devices + deviceBytes * (index + 1)
    fixed.writeUInt32BE(put(Buffer.from(`${name}\0`)), place)
    fixed.writeBigUInt64BE(BigInt(reader.disk(disk).sizeBytes), place + 8)
  }
  const size = Math.ceil((fixedHeaderBytes + blobBytes) / 512) * 512
  if (size > headerMaximumBytes) throw new Fault('too-large', 'the configuration is too long for a vma archive')
  fixed.writeUInt32BE(fixedHeaderBytes, headerPlaces.blobOffset)
  fixed.writeUInt32BE(blobBytes, headerPlaces.blobSize)
  fixed.writeUInt32BE(size, headerPlaces.headerSize)
  const whole = Buffer.concat([fixed, ...blobs], size)
  checksumOf(whole, headerPlaces.checksum).copy(whole, headerPlaces.checksum)
  return whole
}
