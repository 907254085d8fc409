/**
 * Storage on a btrfs file system: PVE's type `btrfs`, in PVE's layout.
 *
 * What lies in subvolumes (raw images, containers' files) has snapshots, linked clones and sizes by the file system's
 * own means. Everything else is as in a storage of type `dir`.
 */
import { Fault, invalid } from '#base/fault.ts'
import { boolean, optional } from '#base/schema/schema.ts'
import { countAgain, isOnBtrfs, quotasOf, removeSubvolume } from '#host/disks/btrfs.ts'
import { storagePlugin } from '../plugin.ts'
import { sweepUnfinished } from '../unfinished.ts'
import { contentTypes, imageFormats } from '../volume.ts'
import { btrfsImages, sweepImages } from './btrfs-images.ts'
import type { SubvolumePlace } from './btrfs-subvolumes.ts'
import { btrfsTrees } from './btrfs-trees.ts'
import { dirFiles } from './dir-files.ts'
import { removeIfEmpty } from './dir-images.ts'
import { folderOptions, folderPlace, guestFolders, layoutOf, sweepFiles } from './folder.ts'

export const btrfs = storagePlugin({
  type: 'btrfs',
  content: contentTypes,
  defaultContent: ['images', 'rootdir'],
  features: {
    formats: imageFormats,
    sparse: true,
    shared: false,
    snapshots: ['raw', 'qcow2'],
    openSnapshots: ['raw'],
    linkedClones: true,
    trees: { snapshots: true, links: true, limits: true },
  },
  config: {
    ...folderOptions,
    nocow: optional(
      boolean({
        description: 'Write raw images in place: faster, and without check sums.',
        default: false,
      }),
    ),
  },
  open(options, { host, storage }) {
    const { path, preallocation = 'off', nocow: isInPlace = false } = options
    const layout = layoutOf(options)
    const place = { layout, storage, host }
    const folder = folderPlace(options, storage)
    return {
      ...folder,
      async prepare() {
        await folder.prepare()
        if (!(await isOnBtrfs(path))) throw invalid({ path: `'${path}' is not on a btrfs file system` })
      },
      async requireActive() {
        await folder.requireActive()
        if (await isOnBtrfs(path)) return
        throw new Fault('unavailable', `storage '${storage}': '${path}' is not on a btrfs file system`, {
          remedy: 'Mount the file system there; is_mountpoint keeps the storage from being used without it.',
        })
      },
      sweep: async () => [...(await sweepGuests(place)), ...(await sweepFiles(layout))],
      images: btrfsImages({ ...place, preallocation, isInPlace }),
      trees: btrfsTrees(place),
      files: dirFiles(layout, storage),
    }
  },
})

async function sweepGuests(place: SubvolumePlace): Promise<string[]> {
  const { layout, host } = place
  const swept = await sweepImages(place)
  for (const folder of await guestFolders(layout)) {
    swept.push(...(await sweepUnfinished(folder, (path) => removeSubvolume(host, path))))
    await removeIfEmpty(folder)
  }
  // Counts that are not true limit nobody.
  if ((await quotasOf(host, layout.root))?.isStale) await countAgain(host, layout.root)
  return swept
}
