/**
 * Looks at a foreign disk image before it is copied into a storage.
 *
 * The format comes from the caller or from the file's ending, never from its content: an image may claim
 * to be whatever suits its maker.
 */
import { stat } from 'node:fs/promises'
import { extname } from 'node:path'
import { invalid, missing } from '#base/fault.ts'
import { asVolumeId, type VolumeId } from '#base/ids.ts'
import { asFileFault } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { type DiskFormat, imageInfo, type ImagePlace, measureImage } from '#host/qemu/qemu-img.ts'
import { membersOf } from './archive.ts'
import { foreign, requireSelfContained } from './image-header.ts'
import { type MemberName, parseVolumeId, plainFileName, volumeId } from './volume.ts'

const endings: Readonly<Record<string, DiskFormat>> = {
  '.raw': 'raw',
  '.qcow2': 'qcow2',
  '.vmdk': 'vmdk',
  '.vhd': 'vpc',
}

export interface SourceImage extends ImagePlace {
  /** As a guest sees it. */
  readonly sizeBytes: number
  /** What a copy takes without its zeros. */
  readonly neededBytes: number
}

/** An image a client names, before anything is said of its format. */
export type ImportPlace = Pick<ImagePlace, 'path' | 'part'> & { readonly format?: DiskFormat | undefined }

/**
 * Where the image is: a file of the host (whether the caller may name one is for others to judge), a guest's disk, a
 * file put there to be imported, or a disk inside an archive.
 * @throws Fault `invalid` naming what can be imported, `missing`
 */
export async function importPlaceOf(
  storages: { readonly location: (volid: VolumeId) => Promise<{ readonly path: string }> },
  source: string,
): Promise<ImportPlace> {
  if (source.startsWith('/')) return { path: source }
  const volid = asVolumeId(source)
  const { storage, name } = parseVolumeId(volid)
  if (name.kind === 'member') return memberPlace(storages, storage, name)
  const isImport = name.kind === 'file' && name.content === 'import'
  if (name.kind !== 'image' && !isImport) {
    throw invalid({ 'import-from': `volume '${volid}' is neither a disk nor of content 'import'` })
  }
  const { path } = await storages.location(volid)
  if (!isImport || !/\.ova$/i.test(name.file)) return { path }
  const disks = (await membersOf(path)).filter(({ name: member }) => isDisk(member))
  throw invalid({
    'import-from': `'${volid}' is an archive: name a disk inside, ${disks.map((disk) => `'${volid}/${plainFileName(disk.name)}'`).join(' or ') || 'of which it has none'}`,
  })
}

async function memberPlace(
  storages: { readonly location: (volid: VolumeId) => Promise<{ readonly path: string }> },
  storage: string,
  { file, member }: MemberName,
): Promise<ImportPlace> {
  const { path } = await storages.location(volumeId(storage, { kind: 'file', content: 'import', file }))
  const [found, ...others] = (await membersOf(path)).filter(({ name }) => plainFileName(name) === member)
  if (!found) throw missing('volume', `${storage}:import/${file}/${member}`)
  if (others.length > 0) throw invalid({ 'import-from': `'${file}' has more than one disk called '${member}'` })
  const { offset, sizeBytes } = found
  return { path, format: formatByEnding(member), part: { offset, sizeBytes } }
}

function isDisk(name: string): boolean {
  return endings[extname(name).toLowerCase()] !== undefined
}

/** The format a file's name promises. @throws Fault `invalid` when it promises none */
export function formatByEnding(path: string): DiskFormat {
  const format = endings[extname(path).toLowerCase()]
  if (format) return format
  throw invalid({ format: `the format of '${path}' cannot be told from its name; give one of raw, qcow2, vmdk, vhd` })
}

/**
 * Facts about an image that is safe to read.
 * @throws Fault `invalid` when it refers to other files or is encrypted, `damaged` when it is not of its format
 */
export async function inspectImage(host: Host, place: ImagePlace): Promise<SourceImage> {
  const { path, format, part } = place
  const file = await stat(path).catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
  if (!file.isFile() && !file.isBlockDevice()) throw invalid({ 'import-from': `'${path}' is neither file nor disk` })
  await requireSelfContained(path, format, undefined, part)
  const info = await imageInfo(host, place)
  const [reference] = info.refersTo
  if (reference !== undefined) throw foreign(path, `'${reference.replaceAll(/[^\x20-\x7e]/g, '?')}'`)
  return { ...place, sizeBytes: info.virtualSizeBytes, neededBytes: await measureImage(host, place) }
}
