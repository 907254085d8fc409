/**
 * A file that is made once and then stays, such as a key. It gets its name by `link`, which fails where there is one:
 * of two who come at the same moment both use what the first one made.
 */
import { link, readFile, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { asFileFault, codeOf, makeDirectory, syncDirectory, writeFileAtomic } from '../files.ts'

/** Who comes again so often has been in nobody's way. */
const attempts = 100

/** @returns what the file holds, made by us or by somebody before. Root alone may read it. @throws Fault `exhausted` */
export async function madeOnce(path: string, make: () => string | Uint8Array): Promise<Buffer> {
  for (let attempt = 1; attempt < attempts; attempt += 1) {
    const found = await readFile(path).catch((cause: unknown) => {
      if (codeOf(cause) === 'ENOENT') return undefined
      throw asFileFault(cause, path)
    })
    if (found) return found
    await makeDirectory(dirname(path), 0o700)
    const fresh = `${path}.new`
    await writeFileAtomic(fresh, make(), 0o600)
    try {
      await link(fresh, path)
      await syncDirectory(dirname(path))
    } catch (cause) {
      // With ENOENT another one has taken the fresh file away, or has just put their own in its place: look again.
      if (!['EEXIST', 'ENOENT'].includes(codeOf(cause) ?? '')) throw asFileFault(cause, path)
    }
    await rm(fresh, { force: true })
  }
  return readFile(path)
}
