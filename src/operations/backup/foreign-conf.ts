/**
 * A guest's configuration as another platform wrote it into an archive: taken apart, and believed nowhere.
 *
 * What cannot be used is never dropped in silence; it is listed with the reason, for the task's log.
 */
import { Fault } from '#base/fault.ts'
import { KiB } from '#base/bytes.ts'

/** Which device of the archive is which drive, and where it was. */
export interface ForeignDisk {
  /** `scsi0`; also what no drive of ours is called, such as `tpmstate0`. */
  readonly drive: string
  /** `drive-scsi0` */
  readonly device: string
  readonly storage?: string | undefined
  readonly format?: string | undefined
}

export interface ForeignConf {
  readonly options: Readonly<Record<string, string>>
  readonly disks: readonly ForeignDisk[]
  /** Names of snapshots, which are not in an archive. */
  readonly snapshots: readonly string[]
  /** Lines that are no configuration, shortened. */
  readonly strange: readonly string[]
}

export const foreignConfName = 'qemu-server.conf'

const textBytes = 64 * KiB
const valueMaximum = 16_384
const namePattern = /^[a-z][a-z0-9_-]{0,39}$/

/** @throws Fault `damaged` for what is no text, or too long */
export function parseForeignConf(content: Buffer): ForeignConf {
  const text = textOf(content)
  const options: Record<string, string> = {}
  const found = { disks: [] as ForeignDisk[], snapshots: [] as string[], strange: [] as string[] }
  const description: string[] = []
  let section: string | undefined
  for (const line of text.split(/\r?\n/)) {
    const heading = /^\[([^\]]{1,80})\]\s*$/.exec(line)?.[1]
    if (heading !== undefined) {
      section = heading
      if (!/^(PENDING$|special:)/i.test(heading)) found.snapshots.push(heading)
      continue
    }
    if (section !== undefined || line.trim() === '') continue
    if (line.startsWith('#')) readComment(line, found.disks, description)
    else if (!readOption(line, options)) found.strange.push(line.slice(0, 80))
  }
  if (description.length > 0) options.description = description.join('\n')
  return { options, ...found }
}

function textOf(content: Buffer): string {
  if (content.length > textBytes) throw new Fault('damaged', `the configuration in the archive is too long`)
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(content)
  } catch (cause) {
    throw new Fault('damaged', 'the configuration in the archive is no text', { cause })
  }
}

function readComment(line: string, disks: ForeignDisk[], description: string[]): void {
  const [, drive, device, storage, format] = /^#qmdump#map:([^:]*):([^:]*):([^:]*):([^:]*):?\s*$/.exec(line) ?? []
  if (drive === undefined || device === undefined) {
    // Other words of this kind are for the tools of their maker.
    if (!line.startsWith('#qmdump#')) description.push(decoded(line.slice(1)))
    return
  }
  disks.push({ drive, device, storage: storage || undefined, format: format || undefined })
}

/** False for a line that is no option. A later line of a name takes the place of an earlier one. */
function readOption(line: string, options: Record<string, string>): boolean {
  const [, name = '', value = ''] = /^([^:\s]+):\s*(.*?)\s*$/.exec(line) ?? []
  if (!namePattern.test(name) || value === '' || value.length > valueMaximum) return false
  options[name] = name === 'description' ? decoded(value) : value
  return true
}

/** Percent-encoding as far as it is one. */
function decoded(text: string): string {
  return text.replaceAll(/(?:%[0-9A-Fa-f]{2})+/g, (encoded) => {
    try {
      return decodeURIComponent(encoded)
    } catch {
      return encoded // Bytes that are no text: better seen as they stand.
    }
  })
}

/**
 * The drive a device holds: as the configuration says, or by its name.
 * @throws Fault `damaged` when two devices are one drive
 */
export function drivesOfDevices(conf: ForeignConf, devices: readonly string[]): Map<string, ForeignDisk> {
  const byDevice = new Map<string, ForeignDisk>()
  for (const device of devices) {
    const named = conf.disks.find((disk) => disk.device === device)
    const drive = named?.drive ?? device.replace(/^drive-/, '')
    if (!/^[a-z][a-z0-9]{1,19}$/.test(drive)) {
      throw new Fault('damaged', `the archive has a device '${device}', which is no drive of a guest`)
    }
    if ([...byDevice.values()].some((other) => other.drive === drive)) {
      throw new Fault('damaged', `the archive holds drive ${drive} twice`)
    }
    byDevice.set(device, { ...named, drive, device })
  }
  return byDevice
}
