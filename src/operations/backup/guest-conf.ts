/**
 * A guest's configuration as it is stored with a backup: one `name: value` a line, as Proxmox VE writes
 * `qemu-server/100.conf` and `lxc/101.conf`, so that a person can read it with any tool. What would break a line is
 * percent-encoded.
 */
import { Fault } from '#base/fault.ts'
import type { VolumeId } from '#base/ids.ts'
import type { BackupReader } from '#datastore/restore/reader.ts'
import type { BackupService } from '#backup/service.ts'
import { withoutSecrets } from '#guests/cloud-init/options.ts'
import type { Options } from '#guests/config.ts'

/** Name of that file in a backup of this type. */
export const guestConfNames = { vm: 'qemu-server.conf', ct: 'pct.conf' } as const

export function printGuestConf(options: Options): string {
  const names = Object.keys(options).toSorted()
  return names.map((name) => `${name}: ${encode(options[name] ?? '')}\n`).join('')
}

/** @throws Fault `damaged` */
export function parseGuestConf(text: string): Record<string, string> {
  const options: Record<string, string> = {}
  for (const line of text.split('\n')) {
    if (line === '') continue
    const [, name, value] = /^([a-zA-Z][a-zA-Z0-9_-]*): (.*)$/s.exec(line) ?? []
    if (name === undefined || value === undefined || Object.hasOwn(options, name)) {
      throw new Fault('damaged', `the guest's configuration in the backup cannot be read at '${line.slice(0, 80)}'`)
    }
    options[name] = decode(value)
  }
  return options
}

/** The text stored in a backup, for a person to read: without a password. @throws Fault `missing`, `damaged` */
export async function readGuestConf(backup: BackupService, volid: VolumeId): Promise<string> {
  await using reader = await backup.open(volid)
  return printGuestConf(withoutSecrets(await storedOptions(reader)))
}

/** The guest's configuration as it was backed up. @throws Fault `damaged` */
export async function storedOptions(reader: BackupReader): Promise<Record<string, string>> {
  const { type } = reader.head.point
  if (type === 'host') throw new Fault('invalid', `the backup is of a host, and of no guest`)
  return parseGuestConf((await reader.file(guestConfNames[type])).toString('utf8'))
}

function encode(value: string): string {
  return value.replaceAll('%', '%25').replaceAll('\n', '%0A').replaceAll('\r', '%0D')
}

function decode(value: string): string {
  return value.replaceAll('%0A', '\n').replaceAll('%0D', '\r').replaceAll('%25', '%')
}
