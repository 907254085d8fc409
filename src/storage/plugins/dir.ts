/**
 * Storage in a folder of a mounted file system: PVE's type `dir`, in PVE's layout.
 *
 * The folder is the truth; nothing about volumes is kept elsewhere, so files put there by hand with
 * proper names are volumes too.
 */
import type { Host } from '#host/host.ts'
import { removeTree } from '#host/files/remove-tree.ts'
import { storagePlugin } from '../plugin.ts'
import { sweepUnfinished } from '../unfinished.ts'
import { contentTypes, imageFormats } from '../volume.ts'
import { dirFiles } from './dir-files.ts'
import { dirImages, removeIfEmpty } from './dir-images.ts'
import type { Layout } from './dir-paths.ts'
import { dirTrees, sweepReserved } from './dir-trees.ts'
import { folderOptions, folderPlace, guestFolders, layoutOf, sweepFiles } from './folder.ts'

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
    trees: { snapshots: false, links: true, limits: false },
  },
  config: folderOptions,
  open(options, { host, storage }) {
    const { preallocation = 'off' } = options
    const layout = layoutOf(options)
    return {
      ...folderPlace(options, storage),
      sweep: async () => [...(await sweepGuests(layout, host)), ...(await sweepFiles(layout))],
      images: dirImages({ layout, storage, host, preallocation }),
      trees: dirTrees({ layout, storage, host }),
      files: dirFiles(layout, storage),
    }
  },
})

async function sweepGuests(layout: Layout, host: Host): Promise<string[]> {
  const swept: string[] = []
  for (const folder of await guestFolders(layout)) {
    swept.push(...(await sweepUnfinished(folder, (path) => removeTree(host, path))), ...(await sweepReserved(folder)))
    await removeIfEmpty(folder)
  }
  return swept
}
