/**
 * Storage in a folder of a mounted file system: PVE's type `dir`, in PVE's layout.
 *
 * The folder is the truth; nothing about volumes is kept elsewhere, so files put there by hand with
 * proper names are volumes too.
 */
import { mkdir, readFile, realpath, stat } from 'node:fs/promises'
import { statfs } from 'node:fs/promises'
import { resolve } from 'node:path'
import { Fault } from '#base/fault.ts'
import { boolean, enumOf, optional, string } from '#base/schema/schema.ts'
import { asFileFault, codeOf } from '#host/files.ts'
import { type Space, storagePlugin } from '../plugin.ts'
import { filesIn, sweepUnfinished } from '../unfinished.ts'
import { contentTypes, type FileContent, imageFormats } from '../volume.ts'
import { dirFiles } from './dir-files.ts'
import { dirImages, removeIfEmpty } from './dir-images.ts'
import { dirTrees } from './dir-trees.ts'
import {
  datastoreFolder,
  fileFolder,
  imageFolder,
  type Layout,
  layoutAt,
  makeFoldersFor,
  overridesIn,
} from './dir-paths.ts'

const pathPattern = /(?:\/(?!\.{1,2}(?:\/|$))[-a-zA-Z0-9_.@]+)+/
const yes = ['yes', '1', 'on', 'true']

export const dir = storagePlugin({
  type: 'dir',
  content: contentTypes,
  defaultContent: ['images', 'rootdir'],
  features: {
    formats: imageFormats,
    sparse: true,
    shared: false,
    snapshots: ['qcow2'],
    openSnapshots: [],
    linkedClones: true,
    trees: { snapshots: false, links: false, limits: false },
  },
  config: {
    path: string({ description: 'Folder that holds everything.', pattern: pathPattern, maxLength: 1024 }),
    'create-base-path': optional(boolean({ description: 'Make the folder when it does not exist.', default: true })),
    'create-subdirs': optional(
      boolean({ description: 'Make the folders below it as they are needed.', default: true }),
    ),
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
  },
  open(options, { host, storage }) {
    const { path: base, preallocation = 'off', is_mountpoint: mount = 'no' } = options
    const isMade = options.mkdir ?? true
    const layout = layoutAt(base, {
      folders: overridesIn(options['content-dirs'] ?? ''),
      isMaking: options['create-subdirs'] ?? isMade,
    })
    const requireActive = () => requireFolder(storage, base, mountPointOf(base, mount))
    return {
      requireActive,
      async prepare() {
        const mayCreate = (options['create-base-path'] ?? isMade) && mountPointOf(base, mount) === undefined
        try {
          if (mayCreate) await mkdir(base, { recursive: true, mode: 0o711 })
        } catch (cause) {
          // Something that is no folder stands in the way: said below.
          if (codeOf(cause) !== 'EEXIST' && codeOf(cause) !== 'ENOTDIR') throw asFileFault(cause, base)
        }
        await requireActive()
      },
      space: () => spaceAt(base),
      identity: () => realpath(base),
      sweep: () => sweepFolders(layout),
      images: dirImages({ layout, storage, host, preallocation }),
      trees: dirTrees({ layout, storage, host }),
      files: dirFiles(layout, storage),
      async datastore() {
        await makeFoldersFor(layout, 'backup')
        return datastoreFolder(layout)
      },
    }
  },
})

/** The folder something must be mounted on, if any. */
function mountPointOf(base: string, option: string): string | undefined {
  if (option.startsWith('/')) return resolve(option)
  return yes.includes(option) ? base : undefined
}

/** Without this check an unmounted disk would let its storage fill the root file system instead. */
async function requireFolder(storage: string, base: string, mountPoint: string | undefined): Promise<void> {
  if (mountPoint !== undefined && !mountPoints(await readFile('/proc/self/mountinfo', 'utf8')).has(mountPoint)) {
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

/** Folders something is mounted on, from the text of `/proc/self/mountinfo`. */
export function mountPoints(mountinfo: string): Set<string> {
  const fields = mountinfo.split('\n').map((line) => line.split(' ')[4] ?? '')
  // The kernel writes blanks and the like as three octal digits.
  return new Set(
    fields.map((text) =>
      text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8))),
    ),
  )
}

async function spaceAt(base: string): Promise<Space> {
  const { blocks, bfree, bavail, bsize } = await statfs(base)
  return { totalBytes: blocks * bsize, usedBytes: (blocks - bfree) * bsize, availableBytes: bavail * bsize }
}

async function sweepFolders(layout: Layout): Promise<string[]> {
  const files: readonly (FileContent | 'backup')[] = ['iso', 'vztmpl', 'snippets', 'import', 'backup']
  const guests = (await filesIn(imageFolder(layout))).filter((folder) => /^\d+$/.test(folder)).map(Number)
  const guestFolders = guests.map((vmid) => imageFolder(layout, vmid))
  const swept: string[] = []
  for (const folder of [...guestFolders, ...files.map((one) => fileFolder(layout, one))]) {
    swept.push(...(await sweepUnfinished(folder)))
  }
  for (const folder of guestFolders) await removeIfEmpty(folder)
  return swept
}
