/**
 * Puts a whole file into a storage in two steps, so that an operation can have an undo between them:
 * `stageFile` writes and checks out of sight, `publishFile` makes it visible in one act. Both find the
 * file by its volume id and a mark of the caller's.
 */
import { Fault, invalid } from '#base/fault.ts'
import type { VolumeId } from '#base/ids.ts'
import type { Host } from '#host/host.ts'
import { namingFullStorage } from './full.ts'
import { inspectImage } from './import.ts'
import type { OpenStorage } from './opened.ts'
import { type Checksum, copyVerified, moveVerified, openForeign, requireChecksumShape } from './transfer.ts'
import {
  complaintAboutFile,
  type FileContent,
  type FileName,
  parseVolumeId,
  plainFileName,
  volumeId,
} from './volume.ts'

export interface FilePlacement {
  readonly storage: string
  readonly content: FileContent
  /** As the client called it; folders are cut off, odd characters become `_`. */
  readonly fileName: string
  /** Absolute path of the file to copy. */
  readonly source: string
  /** The file is nobody's any more: it may be moved instead. */
  readonly mayMove?: boolean | undefined
  /** Lower-case letters and digits; stands for whoever places the file. */
  readonly mark: string
  readonly checksum?: Checksum | undefined
  readonly onProgress?: ((fraction: number) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

/** The volume a file will be. @throws Fault `invalid` naming the field */
export function placedName(content: FileContent, fileName: string): FileName {
  const file = plainFileName(fileName)
  const complaint = complaintAboutFile(content, file)
  if (complaint !== undefined) throw invalid({ filename: complaint })
  return { kind: 'file', content, file }
}

/** What it is called where it goes. @throws Fault `invalid` */
export function placedVolume(place: Pick<FilePlacement, 'storage' | 'content' | 'fileName'>): VolumeId {
  const { storage, content, fileName } = place
  return volumeId(storage, placedName(content, fileName))
}

/**
 * Copies and checks a file out of sight, and returns what `withdrawFile` knows it by. Images to import are refused here already when they refer to
 * other files, so that none ever lies in a storage.
 */
export async function stageFile(host: Host, open: OpenStorage, placement: FilePlacement): Promise<string> {
  const { content, checksum, source, mark, onProgress, signal } = placement
  open.requireContent(content)
  const name = placedName(content, placement.fileName)
  if (checksum) requireChecksumShape(checksum)
  await using from = await openForeign(source)
  const [what, { size: neededBytes }] = [`file '${name.file}'`, await from.stat()]
  await open.requireRoom(neededBytes, what)
  const { availableBytes, config } = open
  // Awaited here: the source closes with this scope.
  return await namingFullStorage({ storage: config.name, what, neededBytes, availableBytes }, () =>
    open.files.stage(name, mark, async (path) => {
      const isMoved = placement.mayMove === true && (await moveVerified(from, source, path, { checksum, signal }))
      if (!isMoved) await copyVerified(from, path, { checksum, onProgress, signal })
      if (content === 'import') await requireHarmless(host, path, name.file)
    }),
  )
}

export async function publishFile(open: OpenStorage, volid: VolumeId, mark: string): Promise<void> {
  await open.files.publish(fileNameOf(volid), mark)
}

export async function withdrawFile(open: OpenStorage, volid: VolumeId, mark: string, identity: string): Promise<void> {
  await open.files.withdraw(fileNameOf(volid), mark, identity)
}

export async function discardStaged(open: OpenStorage, volid: VolumeId, mark: string): Promise<void> {
  await open.files.discard(fileNameOf(volid), mark)
}

export async function annotateFile(
  open: OpenStorage,
  volid: VolumeId,
  change: { readonly notes?: string | undefined; readonly protected?: boolean | undefined },
): Promise<void> {
  const name = fileNameOf(volid)
  if (name.content !== 'backup') throw new Fault('invalid', `volume '${volid}' is no backup: it has no notes`)
  await open.files.annotate(name, change)
}

function fileNameOf(volid: VolumeId): FileName {
  const { name } = parseVolumeId(volid)
  if (name.kind !== 'file') throw new Fault('invalid', `volume '${volid}' is no file`)
  return name
}

/** Archives (.ova, .ovf) are taken apart, and judged, when they are imported. */
export async function requireHarmless(host: Host, path: string, file: string): Promise<void> {
  const ending = file.split('.').at(-1)?.toLowerCase()
  if (ending === 'qcow2' || ending === 'vmdk') await inspectImage(host, { path, format: ending })
  if (ending === 'vhd') await inspectImage(host, { path, format: 'vpc' })
}
