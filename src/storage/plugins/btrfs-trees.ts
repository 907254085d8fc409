/**
 * Containers' files in a `btrfs` storage: the subvolume `images/<vmid>/subvol-<vmid>-disk-0.subvol`.
 *
 * A size is kept to by quota groups: what a tree refers to, shared with others or not, so that a clone has as much room
 * as the original. Counting costs every writer a little, so it begins on the file system when the first size is asked
 * for. Whose file system counts in the simple way already has that; it is not switched on here, because no older kernel
 * could mount the file system any more.
 */
import { lstat } from 'node:fs/promises'
import { Fault } from '#base/fault.ts'
import { asVmid, type Vmid } from '#base/ids.ts'
import { isSubvolume, limitSubvolume, type Quotas, quotasOf, subvolumeId } from '#host/disks/btrfs.ts'
import { snapshotSubvolume } from '#host/disks/btrfs.ts'
import { receiveSubvolume, sendSubvolume } from '#host/disks/btrfs-streams.ts'
import type { TreeCopies, TreeLinks, TreePart, TreeSource, VolumeFacts } from '../plugin.ts'
import { filesIn } from '../unfinished.ts'
import { isBase, parseVolumeName, type TreeName } from '../volume.ts'
import { type SubvolumePlace, Subvolumes } from './btrfs-subvolumes.ts'
import { imageFolder, volumePath } from './dir-paths.ts'
import { noVolume } from './dir-volumes.ts'

export function btrfsTrees(place: SubvolumePlace): TreePart {
  const { layout, storage, host } = place
  const path = (name: TreeName) => volumePath(layout, name)
  const volumes = new Subvolumes<TreeName>(place, path, { isOpenToGuests: true })
  const limited = async (home: string, limitBytes?: number) => {
    if (limitBytes) await limitSubvolume(host, home, limitBytes)
  }
  const describe = async (name: TreeName) => {
    const facts = name.parent ? undefined : await factsOf(path(name), name, await quotasOf(host, layout.root))
    if (!facts) throw noVolume(storage, name)
    return facts
  }
  return {
    ...volumes.leaving(),
    path,
    describe,
    list: (vmid) => listTrees(place, vmid),
    create: (name, fill, limitBytes) =>
      volumes.create(name, async (home) => {
        await limited(home, limitBytes)
        await fill(home)
      }),
    async limit(name, sizeBytes) {
      await describe(name)
      await limitSubvolume(host, path(name), sizeBytes)
    },
    snapshots: {
      list: (name) => volumes.tags(name),
      take: (name, tag) => volumes.take(name, tag),
      rollBack: (name, tag) => volumes.rollBack(name, tag),
      drop: (name, tag) => volumes.drop(name, tag),
      pathOf: (name, tag) => volumes.tagged(name, tag),
    },
    links: treeLinks(volumes, { describe, limited }),
    copies: treeCopies(volumes, { describe, limited, host }),
  }
}

interface Verbs {
  readonly describe: (name: TreeName) => Promise<VolumeFacts<TreeName>>
  readonly limited: (home: string, limitBytes?: number) => Promise<void>
}

function treeLinks(volumes: Subvolumes<TreeName>, { describe, limited }: Verbs): TreeLinks {
  const path = volumes.home
  return {
    nameOf: ({ kind, vmid, base }) => ({ kind, vmid, base }),
    async link(name, parent) {
      const { sizeBytes } = await describe(parent)
      if (!isBase(parent)) {
        throw new Fault('denied', `'${path(parent)}' cannot be the base of others: it is no template's`)
      }
      await volumes.copy(name, path(parent), (home) => limited(home, sizeBytes))
    },
    async freeze(name) {
      if (isBase(name)) return name
      const frozen: TreeName = { ...name, base: name.base.replace(/^subvol-/, 'basevol-') }
      await volumes.seal(name, frozen)
      return frozen
    },
    async unfreeze(name) {
      const plain: TreeName = { ...name, base: name.base.replace(/^basevol-/, 'subvol-') }
      await volumes.unseal(name, plain)
      return plain
    },
    async layersOf(name) {
      await describe(name)
      return { kind: 'folder', path: path(name) }
    },
  }
}

function treeCopies(
  volumes: Subvolumes<TreeName>,
  { describe, limited, host }: Verbs & Pick<SubvolumePlace, 'host'>,
): TreeCopies {
  const sourceOf = async ({ name, tag }: TreeSource) => {
    await describe(name)
    if (tag !== undefined) await volumes.requireSnapshot(name, tag)
    return tag === undefined ? volumes.home(name) : volumes.tagged(name, tag)
  }
  return {
    kind: 'btrfs',
    copy: async (name, source, limitBytes) =>
      volumes.copy(name, await sourceOf(source), (home) => limited(home, limitBytes)),
    async *send(source, signal) {
      const from = await sourceOf(source)
      if (source.tag !== undefined) return yield* sendSubvolume(from, signal)
      // Only what cannot change can be sent.
      await volumes.requireWhole(from)
      const moment = await volumes.newPath(source.name)
      try {
        await snapshotSubvolume(host, from, moment, { isReadOnly: true })
        yield* sendSubvolume(moment, signal)
      } finally {
        await volumes.discard(moment)
      }
    },
    receive: (name, stream, { limitBytes, signal }) =>
      volumes.receive(
        name,
        (inbox) => receiveSubvolume(inbox, stream, signal),
        (home) => limited(home, limitBytes),
      ),
  }
}

async function listTrees({ layout, host }: SubvolumePlace, vmid?: Vmid): Promise<VolumeFacts<TreeName>[]> {
  const folders = vmid === undefined ? await filesIn(imageFolder(layout)) : [`${vmid}`]
  const names: TreeName[] = []
  for (const owner of folders.filter((folder) => /^[1-9]\d{2,8}$/.test(folder)).map(asVmid)) {
    const files = (await filesIn(imageFolder(layout, owner))).filter((file) => file.endsWith('.subvol'))
    names.push(...files.map((file) => treeNamed(`${owner}/${file}`)).filter((name) => name !== undefined))
  }
  const quotas = names.length === 0 ? undefined : await quotasOf(host, layout.root)
  const found = await Promise.all(names.map((name) => factsOf(volumePath(layout, name), name, quotas)))
  return found.filter((facts) => facts !== undefined)
}

function treeNamed(text: string): TreeName | undefined {
  try {
    const name = parseVolumeName(text)
    return name.kind === 'tree' ? name : undefined
  } catch (error) {
    if (error instanceof Fault) return undefined
    throw error
  }
}

async function factsOf(
  path: string,
  name: TreeName,
  quotas: Quotas | undefined,
): Promise<VolumeFacts<TreeName> | undefined> {
  if (!(await isSubvolume(path))) return undefined
  const quota = quotas?.of.get(subvolumeId(path))
  const ctime = Math.floor((await lstat(path)).ctimeMs / 1000)
  return { name, sizeBytes: quota?.limitBytes ?? 0, usedBytes: quota?.usedBytes ?? 0, ctime }
}
