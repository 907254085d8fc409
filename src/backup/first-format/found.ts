/** Datastores of the first format, where one of today is looked for. */
import { join } from 'node:path'
import { Fault, isFault } from '#base/fault.ts'
import { unseal } from '#datastore/sealed.ts'
import { readIfPresent } from '#host/files.ts'

export async function isOfFirstFormat(path: string): Promise<boolean> {
  try {
    const text = await readIfPresent(join(path, 'format'))
    if (text === undefined) return false
    const { format, version } = Object(unseal(text, `'${path}'`)) as Readonly<Record<string, unknown>>
    return format === 'hakobune-datastore' && version === 1
  } catch (fault) {
    if (isFault(fault, 'damaged')) return false
    throw fault
  }
}

export function ofFirstFormat(path: string): Fault {
  return new Fault('unavailable', `the datastore '${path}' is of the first format, which is not encrypted`, {
    remedy:
      'Take its backups over into an encrypted one: `hako backup take-over STORAGE`, or without a node `hako datastore migrate OLD NEW`. What is there stays.',
  })
}
