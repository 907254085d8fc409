/** Copies of what is called by its hash, proven on the way. */
import { open, rm } from 'node:fs/promises'
import { MiB } from '#base/bytes.ts'
import { Fault, isFault } from '#base/fault.ts'
import { asFileFault } from '#host/files.ts'
import { NameDigest } from '../digests.ts'
import type { Place } from '../places/place.ts'

const step = 4 * MiB

/**
 * Copies an object to a local file, synced, and says false when it is not there any more.
 * @param path where nothing is yet, and nothing is afterwards unless it went well
 * @throws Fault `damaged` when it is not what its name says
 */
export async function copyProven(
  from: Place,
  name: string,
  path: string,
  onBytes: (count: number) => Promise<void> | void = () => {},
): Promise<boolean> {
  const file = await open(path, 'wx', 0o600).catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
  try {
    const size = await from.sizeOf(name)
    const hash = new NameDigest()
    using plan = from.plan?.()
    for (let at = 0; at < size; at += step) plan?.add(name, at, Math.min(step, size - at))
    for (let at = 0; at < size; at += step) {
      const bytes = await from.read(name, at, Math.min(step, size - at))
      hash.update(bytes)
      await file.writeFile(bytes)
      await onBytes(bytes.length)
    }
    if (hash.hex() !== name.slice(-64)) {
      throw new Fault('damaged', `'${name}' in '${from.label}' is not what its name says`, {
        remedy: 'Verify the source; what is damaged there is not copied.',
      })
    }
    await file.datasync()
    await file.close()
    return true
  } catch (fault) {
    await file.close().catch(() => {})
    await rm(path, { force: true })
    if (isFault(fault, 'missing')) return false
    throw asFileFault(fault, path)
  }
}
