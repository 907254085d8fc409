/**
 * The files in a backup in the shape of Proxmox VE's file restore: of a container one archive with everything in it, of a
 * virtual machine one for each disk.
 */
import { invalid } from '#base/fault.ts'
import type { VolumeId } from '#base/ids.ts'
import { boolean, integer, object, optional, type Static, string } from '#base/schema/schema.ts'
import { dataBytesOf } from '#datastore/points/manifest.ts'
import { entryLetters } from '#datastore/tree/record.ts'
import { textOf } from '#datastore/tree/reader.ts'
import { type BackupFile, filesAt, requireFiles } from './backup-files.ts'
import type { BackupSources } from './backups.ts'

/** What people who come from there find at the top. */
const archive = 'root.pxar.didx'
const diskArchive = /^drive-([a-z][a-z0-9-]{0,31})\.img\.fidx$/

export const restoreItem = object({
  filepath: string({ description: 'Path of the entry, in base64.' }),
  leaf: boolean({ description: 'There is nothing below it.' }),
  mtime: optional(integer({ description: 'When its content changed last.' })),
  size: optional(integer({ description: 'Bytes.' })),
  text: string({ description: 'Name.' }),
  type: string({ description: 'One letter: d, f, l, h, p, s, c, b, or v for a disk or a part of one.' }),
})

/** The path as `filesAt` takes it that a client means; nothing for the list of archives. @throws Fault `invalid` */
export function pathMeant(filepath: string): string | undefined {
  if (filepath === '/') return undefined
  if (!/^[A-Za-z0-9+/_-]+={0,2}$/.test(filepath))
    throw invalid({ filepath: 'invalid format - it is / or a path in base64' })
  const path = Buffer.from(filepath, 'base64').toString('latin1')
  if (path === '/') return undefined
  const [, first = '', rest = ''] = /^\/?([^/]+)(\/.*)?$/s.exec(path) ?? []
  const [, disk] = diskArchive.exec(first) ?? []
  if (disk !== undefined) return `/${disk}${rest}`
  if (first !== archive) throw invalid({ filepath: `the backup has no archive '${textOf(first)}': it has ${archive}` })
  return rest === '' ? '/' : rest
}

/** @throws Fault `missing`, `invalid` */
export async function listedAt(
  sources: BackupSources,
  volid: VolumeId,
  filepath: string,
): Promise<Static<typeof restoreItem>[]> {
  const path = pathMeant(filepath)
  const { manifest } = await sources.backup.describe(volid)
  if (manifest.point.type === 'vm') return (await filesAt(sources, volid, path ?? '/')).map(itemOnDisk)
  if (path !== undefined) return (await filesAt(sources, volid, path)).map(itemOf)
  requireFiles(manifest, volid)
  return [{ filepath: encoded(`/${archive}`), leaf: false, size: dataBytesOf(manifest), text: archive, type: 'd' }]
}

function itemOnDisk(file: BackupFile): Static<typeof restoreItem> {
  const { path, entry } = file
  const whole = path.replace(/^\/([^/]+)/, '/drive-$1.img.fidx')
  const isDisk = path.lastIndexOf('/') === 0
  return {
    ...itemOf(file),
    filepath: encoded(whole),
    ...(isDisk ? { text: whole.slice(1) } : {}),
    ...(entry.isVirtual === true ? { type: 'v', size: entry.sizeBytes } : {}),
  }
}

function itemOf({ path, name, entry }: BackupFile): Static<typeof restoreItem> {
  const isFolder = entry.kind === 'directory'
  return {
    filepath: encoded(`/${archive}${path}`),
    leaf: !isFolder,
    mtime: Math.max(0, entry.modified.seconds),
    ...(entry.kind === 'file' ? { size: entry.sizeBytes } : {}),
    text: textOf(name),
    type: entryLetters[entry.kind],
  }
}

const encoded = (path: string) => Buffer.from(path, 'latin1').toString('base64')
