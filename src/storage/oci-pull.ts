/**
 * Takes an image of a registry into a storage as a container template, out of sight; `publishFile` shows it.
 *
 * The tool that speaks to the registry writes into a folder beside the file to be, which is its own and which nobody
 * else looks into; what it made is copied from there, read as the foreign file it is. While it works room is looked at
 * again and again: twice what came is written, and some is always left.
 */
import { mkdir, rm } from 'node:fs/promises'
import { GiB, humanSize, MiB } from '#base/bytes.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Host } from '#host/host.ts'
import { type ImagePull, pullImage } from '#host/web/skopeo.ts'
import { namingFullStorage } from './full.ts'
import type { OpenStorage } from './opened.ts'
import { placedName } from './placing.ts'
import { copyVerified, openForeign } from './transfer.ts'

export interface OciPull extends Omit<ImagePull, 'folder' | 'mostBytes' | 'timeoutMs' | 'idleMs' | 'onBytes'> {
  readonly storage: string
  readonly fileName: string
  /** Lower-case letters and digits; stands for whoever places the file. */
  readonly mark: string
  readonly bounds?: Partial<typeof usual>
  readonly onProgress?: ((receivedBytes: number) => void) | undefined
}

const usual = {
  sizeBytes: 64 * GiB,
  idleMs: 60_000,
  wholeMs: 6 * 60 * 60_000,
  /** Left free on the storage, but never more than a twentieth of it. */
  reserveBytes: 256 * MiB,
}

/** @returns what `withdrawFile` knows it by @throws Fault `denied`, `unavailable`, `exhausted`, `too-large`, `timeout`, `aborted` */
export async function stageOciPull(host: Host, open: OpenStorage, pull: OciPull): Promise<string> {
  const { fileName, mark, reference, onProgress, signal } = pull
  const bounds = { ...usual, ...pull.bounds }
  open.requireContent('vztmpl')
  const name = placedName('vztmpl', fileName)
  const { totalBytes } = await open.driver.space()
  const reserve = Math.min(bounds.reserveBytes, Math.floor(totalBytes / 20))
  const requireRoom = () => open.requireRoom(reserve, `the rest of file '${name.file}'`)
  await requireRoom()
  const { availableBytes, config } = open
  const writing = { storage: config.name, what: `file '${name.file}'`, availableBytes, neededBytes: undefined }
  try {
    return await namingFullStorage(writing, () =>
      open.files.stage(name, mark, async (path) => {
        const folder = `${path}.oci`
        await mkdir(folder, { mode: 0o700 })
        try {
          const file = await pullImage(host, {
            ...pull,
            folder,
            mostBytes: bounds.sizeBytes,
            timeoutMs: bounds.wholeMs,
            idleMs: bounds.idleMs,
            onBytes: async (received) => {
              onProgress?.(received)
              await requireRoom()
            },
          })
          await using from = await openForeign(file)
          await open.requireRoom((await from.stat()).size + reserve, `file '${name.file}'`)
          await copyVerified(from, path, { signal })
        } finally {
          // A tool that was killed may write while this looks.
          await rm(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 })
        }
      }),
    )
  } catch (cause) {
    if (isFault(cause, 'timeout')) {
      throw new Fault('timeout', `pulling '${reference}' took longer than ${bounds.wholeMs / 1000} s`, { cause })
    }
    if (isFault(cause, 'too-large')) {
      throw new Fault('too-large', `the image '${reference}' is larger than ${humanSize(bounds.sizeBytes)}`, { cause })
    }
    throw cause
  }
}
