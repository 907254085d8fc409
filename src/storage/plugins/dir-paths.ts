/** Where things lie below the path of a `dir` storage: PVE's layout, and `datastore/` for our backup engine. */
import { chmod, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf } from '#host/files.ts'
import type { ContentType, FileContent, StoredName } from '../volume.ts'

/** Folders others must pass through to reach a file they were given, and in which they see nothing else. */
export const PASSABLE = 0o711
export const PRIVATE = 0o700

const fileFolders: Readonly<Record<FileContent | 'backup', string>> = {
  iso: 'template/iso',
  vztmpl: 'template/cache',
  snippets: 'snippets',
  import: 'import',
  backup: 'dump',
}

export function fileFolder(base: string, content: FileContent | 'backup'): string {
  return join(base, fileFolders[content])
}

export function imageFolder(base: string, vmid?: number): string {
  return vmid === undefined ? join(base, 'images') : join(base, 'images', `${vmid}`)
}

export function datastoreFolder(base: string): string {
  return join(base, 'datastore')
}

/** Path of a volume. Safe because a parsed name holds neither slash nor leading dot. */
export function volumePath(base: string, name: StoredName): string {
  return name.kind === 'image'
    ? join(imageFolder(base, name.vmid), `${name.base}.${name.format}`)
    : join(fileFolder(base, name.content), name.file)
}

/** Folders below the base that some content needs, parents first, with their modes. */
export function foldersFor(content: ContentType): readonly { readonly folder: string; readonly mode: number }[] {
  switch (content) {
    case 'images':
    case 'rootdir':
      return [{ folder: 'images', mode: PASSABLE }]
    case 'backup':
      return [
        { folder: 'dump', mode: PRIVATE },
        { folder: 'datastore', mode: PRIVATE },
      ]
    case 'iso':
      // A guest's QEMU opens installation media by itself.
      return [
        { folder: 'template', mode: PASSABLE },
        { folder: 'template/iso', mode: PASSABLE },
      ]
    case 'vztmpl':
      return [
        { folder: 'template', mode: PASSABLE },
        { folder: 'template/cache', mode: PRIVATE },
      ]
    case 'snippets':
    case 'import':
      return [{ folder: content, mode: PRIVATE }]
    default:
      return content satisfies never
  }
}

/** Makes a folder with exactly this mode, whatever the umask; one that exists is left alone. */
export async function makeFolder(path: string, mode: number): Promise<void> {
  try {
    await mkdir(path, { mode })
    await chmod(path, mode)
  } catch (cause) {
    if (codeOf(cause) !== 'EEXIST') throw cause
  }
}

export async function makeFoldersFor(base: string, content: ContentType): Promise<void> {
  for (const { folder, mode } of foldersFor(content)) await makeFolder(join(base, folder), mode)
}
