/** Disks of the machine: what they are, what is on them, and how they feel. */
import { existsSync } from 'node:fs'
import { readdir, realpath } from 'node:fs/promises'
import { Fault, missing } from '#base/fault.ts'
import type { Host } from '../host.ts'

export interface BlockDevice {
  readonly path: string
  /** `disk`, `part`, `lvm`, `crypt`, … */
  readonly type: string
  readonly sizeBytes: number
  readonly model: string | undefined
  readonly vendor: string | undefined
  readonly serial: string | undefined
  readonly wwn: string | undefined
  readonly isRotational: boolean
  readonly transport: string | undefined
  readonly fileSystem: string | undefined
  /** Of that file system. */
  readonly uuid: string | undefined
  readonly partitionTable: string | undefined
  readonly partitionType: string | undefined
  readonly mountPoints: readonly string[]
  readonly children: readonly BlockDevice[]
}

const columns = 'PATH,TYPE,SIZE,MODEL,VENDOR,SERIAL,WWN,ROTA,TRAN,FSTYPE,UUID,PTTYPE,PARTTYPE,MOUNTPOINTS'
const list = ['lsblk', '--json', '--bytes', '--tree', `--output=${columns}`] as const

/** Every disk with what is on it. */
export async function blockDevices(host: Host): Promise<BlockDevice[]> {
  const { stdout } = await host.run(list)
  const devices = parseBlockDevices(stdout)
  // What is on a device lsblk knows from udev alone, which a machine need not have.
  return existsSync('/run/udev/control') ? devices : probed(host, devices)
}

/** One device with what is on it, read from the device now. @throws Fault `missing` */
export async function blockDevice(host: Host, path: string): Promise<BlockDevice> {
  const { code, stdout } = await host.run([...list, '--', path], { okCodes: [0, 32, 64] })
  const [device] = code === 0 ? await probed(host, parseBlockDevices(stdout)) : []
  if (!device) throw missing('device', path)
  return device
}

/** Looks at the devices themselves. */
function probed(host: Host, devices: readonly BlockDevice[]): Promise<BlockDevice[]> {
  return Promise.all(
    devices.map(async (device) => {
      const { TYPE, UUID, PTTYPE } = device.sizeBytes > 0 ? await probe(host, device.path) : {}
      return {
        ...device,
        fileSystem: TYPE ?? device.fileSystem,
        uuid: UUID ?? device.uuid,
        partitionTable: PTTYPE ?? device.partitionTable,
        children: await probed(host, device.children),
      }
    }),
  )
}

type Findings = Readonly<Record<string, string | undefined>>

async function probe(host: Host, path: string): Promise<Findings> {
  // 2: there is nothing known on it, or it cannot be read; 8: more than one thing is.
  const { code, stdout } = await host.run(['blkid', '--probe', '--output', 'export', path], { okCodes: [0, 2, 8] })
  return code === 8 ? { TYPE: 'more than one thing' } : parseProbe(stdout)
}

/** Reads `blkid --probe --output export`: lines of `KEY=value`. */
export function parseProbe(text: string): Findings {
  return Object.fromEntries([...text.matchAll(/^([A-Z_]+)=(.*)$/gm)].map(([, key, value]) => [key, value]))
}

type Row = Readonly<Record<string, unknown>>

/** Reads `lsblk --json`. */
export function parseBlockDevices(text: string): BlockDevice[] {
  const { blockdevices } = JSON.parse(text) as { readonly blockdevices?: readonly Row[] }
  return (blockdevices ?? []).map(deviceOf)
}

function deviceOf(row: Row): BlockDevice {
  const word = (name: string) => {
    const value = row[name]
    return typeof value === 'string' && value.trim() !== '' ? value.trim() : undefined
  }
  const list = (name: string) => (Array.isArray(row[name]) ? (row[name] as unknown[]) : [])
  return {
    path: word('path') ?? '',
    type: word('type') ?? 'unknown',
    sizeBytes: Number(row.size ?? 0),
    model: word('model'),
    vendor: word('vendor'),
    serial: word('serial'),
    wwn: word('wwn'),
    isRotational: row.rota === true,
    transport: word('tran'),
    fileSystem: word('fstype'),
    uuid: word('uuid'),
    partitionTable: word('pttype'),
    partitionType: word('parttype'),
    mountPoints: list('mountpoints').filter((point): point is string => typeof point === 'string'),
    children: list('children').map((child) => deviceOf(child as Row)),
  }
}

/** The name that stays the same whatever order disks are found in. */
export async function stableNames(): Promise<ReadonlyMap<string, string>> {
  const directory = '/dev/disk/by-id'
  const names = await readdir(directory).catch((): string[] => [])
  const found = new Map<string, string>()
  for (const name of names.toSorted()) {
    const path = await realpath(`${directory}/${name}`).catch(() => undefined)
    if (path !== undefined && !found.has(path)) found.set(path, `${directory}/${name}`)
  }
  return found
}

export interface SmartReport {
  /** `PASSED`, `FAILED`, `OK`, `UNKNOWN`. */
  readonly health: string
  readonly type: 'ata' | 'text'
  readonly attributes?: readonly Readonly<Record<string, unknown>>[]
  readonly text?: string
}

/** @throws Fault `missing` where smartmontools is not installed */
export async function smartReport(host: Host, disk: string, isHealthOnly: boolean): Promise<SmartReport> {
  const what = isHealthOnly ? ['--health'] : ['--health', '--attributes', '--info']
  // Its exit code is a set of bits about the disk; why it could not be asked stands in what it prints.
  const okCodes = Array.from({ length: 256 }, (_, code) => code)
  const { stdout } = await host.run(['smartctl', '--json', ...what, '--', disk], { okCodes })
  return parseSmart(stdout)
}

/** Reads `smartctl --json`. @throws Fault `failed` with its own words when it could not ask the disk */
export function parseSmart(text: string): SmartReport {
  const report = JSON.parse(text) as Row
  const passed = (report.smart_status as Row | undefined)?.passed
  const health = passed === true ? 'PASSED' : passed === false ? 'FAILED' : 'UNKNOWN'
  const table = (report.ata_smart_attributes as Row | undefined)?.table
  const messages = ((report.smartctl as Row | undefined)?.messages as readonly Row[] | undefined) ?? []
  if (passed === undefined && table === undefined && messages.length > 0) {
    throw new Fault('failed', messages.map((message) => String(message.string)).join('; '))
  }
  if (Array.isArray(table)) return { health, type: 'ata', attributes: table.map((row) => attributeOf(row as Row)) }
  const nvme = report.nvme_smart_health_information_log
  return { health, type: 'text', text: nvme === undefined ? '' : linesOf(nvme as Row) }
}

function attributeOf(row: Row): Row {
  const flags = (row.flags as Row | undefined)?.string
  return {
    id: String(row.id as number).padStart(3),
    name: row.name,
    value: row.value,
    normalized: row.value,
    worst: row.worst,
    threshold: row.thresh,
    fail: row.when_failed === '' ? '-' : row.when_failed,
    flags: typeof flags === 'string' ? flags.trim() : '',
    raw: (row.raw as Row | undefined)?.string,
  }
}

function linesOf(values: Row): string {
  return Object.entries(values)
    .map(([name, value]) => `${name.replaceAll('_', ' ')}: ${JSON.stringify(value)}`)
    .join('\n')
}
