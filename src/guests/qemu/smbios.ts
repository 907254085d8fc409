/** What the guest's firmware says about itself: SMBIOS texts, and the id that changes with each copy. */
import { readPropertyString } from '#base/schema/property-string.ts'
import { boolean, optional, string } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import { keyed } from './argument.ts'

const uuidPattern = /[a-fA-F0-9]{8}(?:-[a-fA-F0-9]{4}){3}-[a-fA-F0-9]{12}/
const texts = ['family', 'manufacturer', 'product', 'serial', 'sku', 'version'] as const

export const smbiosFormat: PropertyFormat = {
  uuid: { schema: optional(string({ pattern: uuidPattern })) },
  base64: { schema: optional(boolean({ description: 'The texts are base64.' })) },
  ...Object.fromEntries(
    texts.map((name) => [name, { schema: optional(string({ pattern: /[^,]*/, maxLength: 200 })) }]),
  ),
}

export const vmgenidPattern = new RegExp(`(?:${uuidPattern.source}|[01])`)

export function smbiosToArgv(options: Options): string[] {
  const argv: string[] = []
  if (options.smbios1 !== undefined) {
    const values = readPropertyString(smbiosFormat, options.smbios1, 'smbios1')
    const plain = (value: unknown) =>
      values.base64 === true ? Buffer.from(String(value), 'base64').toString('utf8') : String(value)
    const bag: Record<string, string> = { type: '1' }
    if (values.uuid !== undefined) bag.uuid = String(values.uuid)
    for (const name of texts) if (values[name] !== undefined) bag[name] = plain(values[name])
    argv.push('-smbios', keyed('', bag))
  }
  const { vmgenid } = options
  // `0` switches it off; `1` asks for one, and is replaced by an id when the configuration is written.
  if (vmgenid !== undefined && vmgenid.length > 1)
    argv.push('-device', keyed('vmgenid', { id: 'vmgenid', guid: vmgenid }))
  return argv
}
