/**
 * Writes a disk of a backup over a block device. What was on it does not show through: holes are made zero first. The first
 * part comes back last, so whatever ends the work in between, nothing takes the device for what it was, or for whole.
 */
import { MiB } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import { alignedBuffer, blockBytes } from '#host/files/direct-file.ts'
import type { HeldDevice } from '#host/disks/held-device.ts'
import type { DiskMap } from '../maps/disk-map.ts'
import { type BlockTarget, fileTarget } from './block-target.ts'
import type { BackupReader } from './reader.ts'
import { restoreDisk, type RestoreOptions } from './restore-disk.ts'

/** Partition tables and the marks of file systems, volume groups and arrays lie in the first of it or the last. */
const endBytes = MiB

export interface DeviceRestoreOptions extends RestoreOptions {
  /** Told of what was made zero, before anything is written. */
  readonly onZeroed?: (doneBytes: number, allBytes: number) => void
}

/** @throws Fault `invalid` naming both sizes */
export function requireRoom(reader: BackupReader, name: string, { path, facts }: HeldDevice): void {
  const { sizeBytes } = reader.disk(name)
  if (facts.sizeBytes >= sizeBytes) return
  throw new Fault('invalid', `device '${path}' has ${facts.sizeBytes} bytes, and disk ${name} needs ${sizeBytes}`, {
    remedy: 'Name a larger device; nothing was written.',
  })
}

/**
 * Behind the end of the disk everything is zero where the device can forget, else its last MiB.
 * @returns bytes written that are not zero
 * @throws Fault as `restoreDisk`
 */
export async function restoreOntoDevice(
  reader: BackupReader,
  name: string,
  device: HeldDevice,
  options: DeviceRestoreOptions = {},
): Promise<number> {
  requireRoom(reader, name, device)
  const { sizeBytes } = reader.disk(name)
  const all = device.facts.sizeBytes
  // What cannot be read is found before anything is lost.
  const map = await reader.mapOf(name)
  await using target = await fileTarget(device.path, all)
  await zeroEnds(device, target, sizeBytes, options)
  await zeroHoles({ map, chunkBytes: reader.chunkBytes, sizeBytes }, device, options)
  await device.flush()
  return await restoreDisk(reader, name, beginningLast(target, Math.min(endBytes, sizeBytes)), options)
}

async function zeroEnds(
  device: HeldDevice,
  target: BlockTarget,
  sizeBytes: number,
  { signal }: DeviceRestoreOptions,
): Promise<void> {
  const all = device.facts.sizeBytes
  const isForgotten = await device.zero(0, Math.min(endBytes, all), { signal })
  await device.flush()
  const behind = Math.min(all, blocksOf(sizeBytes))
  if (behind > sizeBytes) await target.write(sizeBytes, Buffer.alloc(behind - sizeBytes))
  const rest = isForgotten ? behind : Math.max(behind, Math.floor((all - endBytes) / blockBytes) * blockBytes)
  await device.zero(rest, all, { signal })
}

async function zeroHoles(
  { map, chunkBytes, sizeBytes }: { readonly map: DiskMap; readonly chunkBytes: number; readonly sizeBytes: number },
  device: HeldDevice,
  { signal, onZeroed }: DeviceRestoreOptions,
): Promise<void> {
  const end = Math.min(device.facts.sizeBytes, blocksOf(sizeBytes))
  let [at, done] = [0, 0]
  const zero = async (from: number, to: number) => {
    await device.zero(from, to, { signal, onZeroed: (bytes) => onZeroed?.((done += bytes), sizeBytes) })
  }
  for await (const { position } of map.entries()) {
    const from = position * chunkBytes
    if (from > at) await zero(at, from)
    // What is written later needs no zeros.
    done += chunkBytes
    at = from + chunkBytes
  }
  if (at < end) await zero(at, end)
}

function blocksOf(bytes: number): number {
  return Math.ceil(bytes / blockBytes) * blockBytes
}

/** Everything else is on the disk before the first bytes are. */
function beginningLast(target: BlockTarget, bytes: number): BlockTarget {
  const beginning = alignedBuffer(bytes)
  return {
    ...target,
    async write(offset, content) {
      if (offset >= bytes) return target.write(offset, content)
      const here = content.subarray(0, bytes - offset)
      beginning.set(here, offset)
      if (here.length < content.length) await target.write(bytes, content.subarray(here.length))
    },
    async flush() {
      await target.flush()
      await target.write(0, beginning)
      await target.flush()
    },
  }
}
