/** What storages in a folder of a mounted file system have in common: their options, and whether the folder is there. */
import { mkdir, realpath, stat, statfs } from 'node:fs/promises'
import { resolve } from 'node:path'
import { Fault } from '#base/fault.ts'
import { boolean, enumOf, optional, type StaticProperties, string } from '#base/schema/schema.ts'
import { asFileFault, codeOf } from '#host/files.ts'
import { mountPoints } from '#host/disks/mount.ts'
import type { Space, StorageDriver } from '../plugin.ts'
import { filesIn, sweepUnfinished } from '../unfinished.ts'
import { type FileContent, imageFormats } from '../volume.ts'
import { datastoreFolder, fileFolder, imageFolder, type Layout, layoutAt, makeFoldersFor } from './dir-paths.ts'
import { overridesIn } from './dir-paths.ts'

const pathPattern = /(?:\/(?!\.{1,2}(?:\/|$))[-a-zA-Z0-9_.@]+)+/
const yes = ['yes', '1', 'on', 'true']

export const folderOptions = {
  path: string({ description: 'Folder that holds everything.', pattern: pathPattern, maxLength: 1024 }),
  'create-base-path': optional(boolean({ description: 'Make the folder when it does not exist.', default: true })),
  'create-subdirs': optional(boolean({ description: 'Make the folders below it as they are needed.', default: true })),
  mkdir: optional(
    boolean({ description: 'Older spelling of create-base-path and create-subdirs together.', default: true }),
  ),
  'content-dirs': optional(
    string({
      description: 'Other folders below it for some contents: iso=my/discs,backup=dumps.',
      maxLength: 1024,
    }),
  ),
  format: optional(enumOf(imageFormats, { description: 'Format of new images when nobody says; raw when absent.' })),
  is_mountpoint: optional(
    string({
      description: 'Use the storage only while something is mounted on its folder (yes), or on the folder named.',
      pattern: new RegExp(`yes|no|1|0|on|off|true|false|${pathPattern.source}`),
      default: 'no',
      maxLength: 1024,
    }),
  ),
  preallocation: optional(
    enumOf(['off', 'metadata', 'falloc', 'full'], {
      description: 'How much of a new image is laid out in advance.',
      default: 'off',
    }),
  ),
}

export function layoutOf(options: StaticProperties<typeof folderOptions>): Layout {
  return layoutAt(options.path, {
    folders: overridesIn(options['content-dirs'] ?? ''),
    isMaking: options['create-subdirs'] ?? options.mkdir ?? true,
  })
}

/** The storage as a place; what lies in it is its driver's. */
export function folderPlace(
  options: StaticProperties<typeof folderOptions>,
  storage: string,
): Pick<StorageDriver, 'requireActive' | 'prepare' | 'space' | 'identity'> & {
  readonly datastore: () => Promise<string>
} {
  const { path: base, is_mountpoint: mount = 'no' } = options
  const layout = layoutOf(options)
  const requireActive = () => requireFolder(storage, base, mountPointOf(base, mount))
  return {
    requireActive,
    async prepare() {
      const isMade = options['create-base-path'] ?? options.mkdir ?? true
      try {
        if (isMade && mountPointOf(base, mount) === undefined) await mkdir(base, { recursive: true, mode: 0o711 })
      } catch (cause) {
        // Something that is no folder stands in the way: said below.
        if (codeOf(cause) !== 'EEXIST' && codeOf(cause) !== 'ENOTDIR') throw asFileFault(cause, base)
      }
      await requireActive()
    },
    space: () => spaceAt(base),
    identity: () => realpath(base),
    async datastore() {
      await makeFoldersFor(layout, 'backup')
      return datastoreFolder(layout)
    },
  }
}

/** The folder something must be mounted on, if any. */
function mountPointOf(base: string, option: string): string | undefined {
  if (option.startsWith('/')) return resolve(option)
  return yes.includes(option) ? base : undefined
}

/** Without this check an unmounted disk would let its storage fill the root file system instead. */
async function requireFolder(storage: string, base: string, mountPoint: string | undefined): Promise<void> {
  if (mountPoint !== undefined && !(await mountPoints()).includes(mountPoint)) {
    throw new Fault('unavailable', `storage '${storage}': nothing is mounted on '${mountPoint}'`, {
      remedy: 'Mount it, or set is_mountpoint to no.',
    })
  }
  const isFolder = await stat(base).then(
    (found) => found.isDirectory(),
    (cause: unknown) => {
      if (codeOf(cause) === 'ENOENT' || codeOf(cause) === 'ENOTDIR') return false
      throw asFileFault(cause, base)
    },
  )
  if (isFolder) return
  throw new Fault('unavailable', `storage '${storage}': the folder '${base}' does not exist`, {
    remedy: 'Make or mount it, then try again.',
  })
}

async function spaceAt(base: string): Promise<Space> {
  const { blocks, bfree, bavail, bsize } = await statfs(base)
  return { totalBytes: blocks * bsize, usedBytes: (blocks - bfree) * bsize, availableBytes: bavail * bsize }
}

/** Removes what killed processes left among plain files. */
export async function sweepFiles(layout: Layout): Promise<string[]> {
  const contents: readonly (FileContent | 'backup')[] = ['iso', 'vztmpl', 'snippets', 'import', 'backup']
  const swept: string[] = []
  for (const one of contents) swept.push(...(await sweepUnfinished(fileFolder(layout, one))))
  return swept
}

/** Folders of guests that have, or had, disks. */
export async function guestFolders(layout: Layout): Promise<string[]> {
  const guests = (await filesIn(imageFolder(layout))).filter((folder) => /^\d+$/.test(folder)).map(Number)
  return guests.map((vmid) => imageFolder(layout, vmid))
}
