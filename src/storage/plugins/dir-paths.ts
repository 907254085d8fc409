/** Where things lie below the path of a `dir` storage: PVE's layout, and `datastore/` for our backup engine. */
import { chmod, mkdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault, invalid } from '#base/fault.ts'
import { splitList } from '#base/schema/formats.ts'
import { codeOf } from '#host/files.ts'
import type { ContentType, FileContent, StoredName } from '../volume.ts'

/** Folders others must pass through to reach a file they were given, and in which they see nothing else. */
export const PASSABLE = 0o711
export const PRIVATE = 0o700

/** What has a folder of its own. Disks of VMs and of containers lie together. */
export type Kept = FileContent | 'backup' | 'images'

const usual: Readonly<Record<Kept, string>> = {
  images: 'images',
  iso: 'template/iso',
  vztmpl: 'template/cache',
  snippets: 'snippets',
  import: 'import',
  backup: 'dump',
}

export interface Layout {
  readonly root: string
  /** Below the root; may have several parts. */
  readonly folders: Readonly<Record<Kept, string>>
  /** Folders that are missing are made. */
  readonly isMaking: boolean
}

export function layoutAt(
  root: string,
  { folders = {}, isMaking = true }: { folders?: Partial<Record<Kept, string>>; isMaking?: boolean } = {},
): Layout {
  return { root, folders: { ...usual, ...folders }, isMaking }
}

const overridePattern = /^([a-z]+)=((?!\.{1,2}(?:\/|$))[-a-zA-Z0-9_.@]+(?:\/(?!\.{1,2}(?:\/|$))[-a-zA-Z0-9_.@]+){0,7})$/

/** Reads `iso=my/discs,backup=dumps`. @throws Fault `invalid` naming the option */
export function overridesIn(text: string): Partial<Record<Kept, string>> {
  const folders: Partial<Record<Kept, string>> = {}
  for (const part of splitList(text)) {
    const [, kind = '', folder = ''] = overridePattern.exec(part) ?? []
    const kept = isKept(kind) ? kind : undefined
    if (!kept || folders[kept] !== undefined) {
      const known = Object.keys(usual).join(', ')
      throw invalid({ 'content-dirs': `invalid format - '${part.slice(0, 200)}' is no content=folder of ${known}` })
    }
    folders[kept] = folder
  }
  const all = Object.entries({ ...usual, ...folders })
  for (const [kind, folder] of all) {
    const clash = all.find(([other, place]) => other !== kind && (place === folder || place.startsWith(`${folder}/`)))
    if (!clash && folder !== 'datastore' && !folder.startsWith('datastore/')) continue
    throw invalid({ 'content-dirs': `'${folder}' of ${kind} holds '${clash?.[1] ?? 'datastore'}' already` })
  }
  return folders
}

function isKept(text: string): text is Kept {
  return Object.hasOwn(usual, text)
}

export function fileFolder({ root, folders }: Layout, content: FileContent | 'backup'): string {
  return join(root, folders[content])
}

export function imageFolder({ root, folders }: Layout, vmid?: number): string {
  return vmid === undefined ? join(root, folders.images) : join(root, folders.images, `${vmid}`)
}

export function datastoreFolder({ root }: Layout): string {
  return join(root, 'datastore')
}

/** Path of a volume. Safe because a parsed name holds neither slash nor leading dot. */
export function volumePath(layout: Layout, name: StoredName): string {
  if (name.kind === 'file') return join(fileFolder(layout, name.content), name.file)
  const isOverlay = name.kind === 'tree' && name.parent !== undefined
  const ending = name.kind === 'image' ? name.format : isOverlay ? 'overlay' : 'subvol'
  return join(imageFolder(layout, name.vmid), `${name.base}.${ending}`)
}

/** Folders below the root that some content needs, parents first, with their modes. */
export function foldersFor(
  { folders }: Layout,
  content: ContentType,
): readonly { readonly folder: string; readonly mode: number }[] {
  const kept = content === 'rootdir' ? 'images' : content
  // A guest's QEMU opens its disks and installation media by itself.
  const mode = kept === 'images' || kept === 'iso' ? PASSABLE : PRIVATE
  const parts = folders[kept].split('/')
  const made = parts.map((_, at) => {
    return { folder: parts.slice(0, at + 1).join('/'), mode: at === parts.length - 1 ? mode : PASSABLE }
  })
  return kept === 'backup' ? [...made, { folder: 'datastore', mode: PRIVATE }] : made
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

/** @throws Fault `unavailable` naming a folder that is missing and not to be made */
export async function makeFoldersFor(layout: Layout, content: ContentType): Promise<void> {
  for (const { folder, mode } of foldersFor(layout, content)) {
    const path = join(layout.root, folder)
    if (layout.isMaking) await makeFolder(path, mode)
    else await requireFolder(path)
  }
}

async function requireFolder(path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined)
  if (found?.isDirectory()) return
  throw new Fault('unavailable', `the folder '${path}' does not exist`, {
    remedy: 'Make it, or let the storage make its folders: create-subdirs 1.',
  })
}
