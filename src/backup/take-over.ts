/** Where the backups of a storage of this node are taken over from, when it still has some of the first format. */
import { rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import { asFileFault, syncDirectory } from '#host/files.ts'
import { FirstDatastore } from './first-format/datastore.ts'
import { isOfFirstFormat } from './first-format/found.ts'

/** Beside the place of the encrypted one, which is the same as it was. */
export function firstPlaceOf(path: string): string {
  return `${path}-first`
}

/**
 * Makes room for an encrypted datastore: the old one moves to a folder beside it. Done once; a second time it only opens.
 * @throws Fault `missing` when there is none
 */
export async function setAsideFirst(path: string): Promise<FirstDatastore> {
  const aside = firstPlaceOf(path)
  if (await isOfFirstFormat(path)) {
    try {
      await rename(path, aside)
      await syncDirectory(dirname(path))
    } catch (cause) {
      throw asFileFault(cause, aside)
    }
  }
  return FirstDatastore.open(aside)
}
