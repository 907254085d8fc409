/**
 * Looks at a foreign disk image before it is copied into a storage.
 *
 * The format comes from the caller or from the file's ending, never from its content: an image may claim
 * to be whatever suits its maker.
 */
import { stat } from 'node:fs/promises'
import { extname } from 'node:path'
import { invalid } from '#base/fault.ts'
import { asFileFault } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { type DiskFormat, imageInfo, measureImage } from '#host/qemu-img.ts'
import { foreign, requireSelfContained } from './image-header.ts'

const endings: Readonly<Record<string, DiskFormat>> = { '.raw': 'raw', '.qcow2': 'qcow2', '.vmdk': 'vmdk' }

export interface SourceImage {
  readonly path: string
  readonly format: DiskFormat
  /** As a guest sees it. */
  readonly sizeBytes: number
  /** What a copy takes without its zeros. */
  readonly neededBytes: number
}

/** The format a file's name promises. @throws Fault `invalid` when it promises none */
export function formatByEnding(path: string): DiskFormat {
  const format = endings[extname(path).toLowerCase()]
  if (format) return format
  throw invalid({ format: `the format of '${path}' cannot be told from its name; give one of raw, qcow2, vmdk` })
}

/**
 * Facts about an image that is safe to read.
 * @throws Fault `invalid` when it refers to other files or is encrypted, `damaged` when it is not of its format
 */
export async function inspectImage(host: Host, path: string, format: DiskFormat): Promise<SourceImage> {
  const file = await stat(path).catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
  if (!file.isFile() && !file.isBlockDevice()) throw invalid({ 'import-from': `'${path}' is neither file nor disk` })
  await requireSelfContained(path, format)
  const info = await imageInfo(host, path, format)
  const [reference] = info.refersTo
  if (reference !== undefined) throw foreign(path, `'${reference.replaceAll(/[^\x20-\x7e]/g, '?')}'`)
  const sizeBytes = info.virtualSizeBytes
  return { path, format, sizeBytes, neededBytes: await measureImage(host, path, format) }
}
