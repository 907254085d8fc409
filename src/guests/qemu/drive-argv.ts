/**
 * Drives on the command line: one block node per drive (`drive-scsi0` over `file-scsi0`) and one device (`scsi0`).
 *
 * Node names are contract inside the project: backup and drills address drives by them.
 */
import type { Options } from '../config.ts'
import { deviceToArgv, keyed } from './argument.ts'
import { bootIndexes } from './boot.ts'
import { controllerOf, driveDevice, nodeNameOf, threadOf } from './drive-device.ts'
import type { Drive } from './drive.ts'
import { drivesOf, isOnBus } from './drive.ts'
import type { FileAccess } from './file-access.ts'
import { efiBytesOf } from './firmware.ts'
import type { MachineKind } from './machine.ts'

/** What must be known about a drive's file to open it. */
export interface DriveFile extends FileAccess {
  readonly path: string
  /** `raw` or `qcow2`; an ISO image is `raw`. */
  readonly format: string
  /**
   * What the image is based on, nearest first: open descriptors QEMU inherits. Its own uid may not open these files,
   * because they are other guests' too.
   */
  readonly backing?: readonly BackingFile[]
  /** Socket of the server of what is below, until the image has all of it. */
  readonly served?: string | undefined
}

export interface BackingFile {
  readonly descriptor: number
  readonly format: string
}

/** @param files the file of each drive that has one, by drive name */
export function drivesToArgv(
  options: Options,
  machine: MachineKind,
  files: Readonly<Record<string, DriveFile>>,
): string[] {
  const drives = drivesOf(options)
  const indexes = bootIndexes(options)
  const argv = controllersFor(options, drives, machine)
  for (const drive of drives) {
    // That one is open in the TPM's own program.
    if (drive.bus === 'tpmstate') continue
    const file = files[drive.name]
    for (const { descriptor } of file?.backing ?? []) {
      argv.push('-add-fd', keyed('', { fd: descriptor, set: descriptor }))
    }
    if (file) argv.push('-blockdev', JSON.stringify(blockNode(drive, file)))
    if (!isOnBus(drive)) continue
    argv.push(...threadToArgv(threadOf(drive)))
    const how = { hasFile: file !== undefined, bootindex: indexes.get(drive.name) }
    argv.push(...deviceToArgv(driveDevice(drive, options, machine, how)))
  }
  return argv
}

function controllersFor(options: Options, drives: readonly Drive[], machine: MachineKind): string[] {
  const argv: string[] = []
  const made = new Set<unknown>()
  for (const drive of drives) {
    const controller = controllerOf(drive, options, machine)
    if (!controller || made.has(controller.device.properties.id)) continue
    made.add(controller.device.properties.id)
    argv.push(...threadToArgv(controller.thread), ...deviceToArgv(controller.device))
  }
  return argv
}

function threadToArgv(id: string | undefined): string[] {
  return id === undefined ? [] : ['-object', keyed('iothread', { id })]
}

const bypassing = new Set(['none', 'directsync'])

/** @param nodeName another name than the drive's own, for a node that is to take its place; its file is not named then */
export function blockNode(drive: Drive, file: DriveFile, nodeName = nodeNameOf(drive.name)): object {
  const { values, isCdrom } = drive
  // The firmware writes a few bytes now and then, where it must not wait for a disk.
  const mode = String(values.cache ?? (isCdrom || !isOnBus(drive) ? 'writeback' : 'none'))
  const cache = { direct: bypassing.has(mode) && file.canBypassCache, 'no-flush': mode === 'unsafe' }
  const discard = values.discard === 'on' ? 'unmap' : 'ignore'
  // Writing zeroes is the one discard every guest knows; without discard it still saves the disk from them.
  const zeroes = values.detect_zeroes === false || isCdrom ? 'off' : discard === 'unmap' ? 'unmap' : 'on'
  const readOnly = isCdrom || values.ro === true
  const usual = file.canUseRing && isOnBus(drive) ? 'io_uring' : 'threads'
  // QEMU refuses it beside the page cache.
  const aio = values.aio === 'native' && !cache.direct ? 'threads' : (values.aio ?? usual)
  const isQcow2 = file.format === 'qcow2'
  return {
    driver: isQcow2 ? 'qcow2' : 'raw',
    // A storage may round up; the firmware's flash has its exact size.
    ...(drive.bus === 'efidisk' && !isQcow2 ? { size: efiBytesOf(drive) } : {}),
    'node-name': nodeName,
    'read-only': readOnly,
    cache,
    discard,
    'detect-zeroes': zeroes,
    // Said in any case: otherwise QEMU would open whatever the image names.
    ...(isQcow2
      ? { backing: file.served === undefined ? backingNode(file.backing ?? []) : servedNode(drive.name, file.served) }
      : {}),
    file: {
      driver: 'file',
      ...(nodeName === nodeNameOf(drive.name) ? { 'node-name': `file-${drive.name}` } : {}),
      filename: file.path,
      'read-only': readOnly,
      aio,
      cache,
      discard,
    },
  }
}

/**
 * Who serves it may be away: the guest waits for its content rather than being told that its disk is broken. As long as it
 * takes, for whoever starts the server again may be away as well.
 */
const reconnectSeconds = 30 * 24 * 3_600

/** The node of what is below a drive's image; there as long as the image lacks something. */
export const servedNodeName = (drive: string) => `below-${drive}`

function servedNode(drive: string, path: string): object {
  const server = { type: 'unix', path }
  const name = servedNodeName(drive)
  return { driver: 'nbd', 'node-name': name, 'read-only': true, server, 'reconnect-delay': reconnectSeconds }
}

function backingNode([first, ...rest]: readonly BackingFile[]): object | null {
  if (!first) return null
  return {
    driver: first.format,
    'read-only': true,
    ...(first.format === 'qcow2' ? { backing: backingNode(rest) } : {}),
    file: { driver: 'file', filename: `/dev/fdset/${first.descriptor}`, 'read-only': true },
  }
}
