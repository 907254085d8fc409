/** An archive another platform made: a file in a storage, or, for root, anywhere on the node. */
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { basename } from 'node:path'
import { Fault, invalid } from '#base/fault.ts'
import { asVolumeId } from '#base/ids.ts'
import { compressionOf, openVma } from '#backup/vma/open.ts'
import type { VmaReader } from '#backup/vma/reader.ts'
import { asFileFault } from '#host/files.ts'
import type { StorageService } from '#storage/service.ts'
import { parseVolumeId } from '#storage/volume.ts'

export interface OpenArchive extends AsyncDisposable {
  readonly reader: VmaReader
  /** As it lies there, packed. */
  readonly fileBytes: number
  /** Whether its content is guarded by more than the checksums of headers. */
  readonly isGuarded: boolean
}

/** True for what is read by `openArchive`; the rest are backups of a datastore. @throws Fault `invalid` */
export function isForeignArchive(archive: string): boolean {
  return archive.startsWith('/') || parseVolumeId(asVolumeId(archive)).name.kind !== 'restore-point'
}

/** True for the backup of a container, by its name alone. @throws Fault `invalid` when it is the name of no volume */
export function isOfContainer(archive: string): boolean {
  if (archive.startsWith('/')) return /\.(?:tar(?:\.\w+)?|tgz)$/.test(archive)
  const { name } = parseVolumeId(asVolumeId(archive))
  if (name.kind === 'restore-point') return name.id.startsWith('ct/')
  return name.kind === 'file' && name.file.startsWith('vzdump-lxc-')
}

/**
 * Whoever calls with a path has seen to it that it is root who asks.
 * @throws Fault `missing`; `invalid` when it is no archive of a virtual machine; `damaged`
 */
export async function openArchive(storage: Pick<StorageService, 'location'>, archive: string): Promise<OpenArchive> {
  const path = archive.startsWith('/') ? archive : await pathOf(storage, archive)
  const compression = compressionOf(basename(path))
  const file = await openFile(path)
  try {
    const { size } = await file.stat()
    const reader = await openVma(file, compression)
    return {
      reader,
      fileBytes: size,
      isGuarded: compression !== 'none',
      async [Symbol.asyncDispose]() {
        await reader[Symbol.asyncDispose]()
        await file.close()
      },
    }
  } catch (cause) {
    await file.close()
    throw cause
  }
}

async function pathOf(storage: Pick<StorageService, 'location'>, archive: string): Promise<string> {
  const { name } = parseVolumeId(asVolumeId(archive))
  if (name.kind !== 'file' || name.content !== 'backup') {
    throw invalid({ archive: `volume '${archive}' is no backup` })
  }
  if (!name.file.startsWith('vzdump-qemu-')) {
    throw invalid({ archive: `volume '${archive}' is the backup of a container, not of a virtual machine` })
  }
  return (await storage.location(asVolumeId(archive))).path
}

async function openFile(path: string): Promise<FileHandle> {
  // A pipe in the file's place would hold us for ever.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
  if ((await file.stat()).isFile()) return file
  await file.close()
  throw new Fault('invalid', `'${path}' is no file`)
}
