/** Snapshots, linked clones and copies of containers' files: the rules, as `links.ts` has them for disks. */
import { humanSize } from '#base/bytes.ts'
import { Fault, invalid } from '#base/fault.ts'
import type { Vmid, VolumeId } from '#base/ids.ts'
import { paced } from '#base/paced.ts'
import { underFreeTreeName } from './allocate.ts'
import { noSnapshots, type VolumeSnapshots } from './links.ts'
import type { OpenStorage } from './opened.ts'
import type { TreeLayers, TreeLinks } from './plugin.ts'
import { isBase, type TreeName, volumeId } from './volume.ts'

/** @throws Fault `invalid` when the storage has none */
export function treeLinksOf({ config, features, trees }: OpenStorage): TreeLinks {
  if (features.trees.links && trees.links) return trees.links
  throw invalid({ storage: `storage '${config.name}' of type '${config.type}' has no linked clones of containers` })
}

/** @throws Fault `failed` in PVE's words when the storage has none */
export function treeSnapshotsOf({ config, features, trees }: OpenStorage, name: TreeName): VolumeSnapshots {
  const { snapshots } = trees
  if (!features.trees.snapshots || !snapshots) {
    const volid = volumeId(config.name, name)
    const remedy = `${volid} cannot hold snapshots: move it to a storage of type btrfs first.`
    throw noSnapshots(volid, remedy)
  }
  return {
    list: () => snapshots.list(name),
    take: (tag) => snapshots.take(name, tag),
    rollBack: (tag) => snapshots.rollBack(name, tag),
    drop: (tag) => snapshots.drop(name, tag),
    isTakenOpen: true,
    pathOf: (tag) => snapshots.pathOf(name, tag),
  }
}

/** @throws Fault `missing`; `denied` when what it is based on is not as a template's files must be */
export async function treeLayersOf({ trees }: OpenStorage, name: TreeName): Promise<TreeLayers> {
  await trees.describe(name)
  return trees.links ? trees.links.layersOf(name) : { kind: 'folder', path: trees.path(name) }
}

/** A new tree of the guest that shows what the base holds. */
export async function linkTree(open: OpenStorage, base: TreeName, vmid: Vmid): Promise<VolumeId> {
  open.requireContent('rootdir')
  const links = treeLinksOf(open)
  if (!isBase(base)) throw new Fault('conflict', `volume '${volumeId(open.config.name, base)}' is not of a template`)
  return underFreeTreeName(open, vmid, async (next) => {
    const name = links.nameOf(next, base)
    await links.link(name, base)
    return name
  })
}

/** @throws Fault `invalid` for less than it has, and where nothing is held to a size */
export async function growTree({ config, trees }: OpenStorage, name: TreeName, sizeBytes: number): Promise<void> {
  const { sizeBytes: now } = await trees.describe(name)
  if (!trees.limit || now === 0) {
    throw invalid({ size: `volume '${volumeId(config.name, name)}' is a folder: it has no size of its own` })
  }
  if (sizeBytes < now) throw invalid({ size: `shrinking disks is not supported (it has ${humanSize(now)})` })
  await trees.limit(name, sizeBytes)
}

export interface TreeCopyRequest {
  readonly source: VolumeId
  /** Copy what this snapshot of the source holds. */
  readonly snapshot?: string | undefined
  readonly storage: string
  /** Guest the copy belongs to. */
  readonly vmid: Vmid
  /** What the copy is held to, where its storage can. Default: as the source is. */
  readonly limitBytes?: number | undefined
  /** Of a copy that goes from one storage to another. Absent or 0: as fast as it can be read. */
  readonly bytesPerSecond?: number | undefined
  /** How many bytes went over so far. */
  readonly onBytes?: ((bytes: number) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

/**
 * A copy made by the file system: of files nobody writes to, or of a snapshot. Undefined where the two storages have no
 * such way in common, and files are to be copied one by one.
 */
export async function copyTreeWhole(
  from: OpenStorage,
  source: TreeName,
  to: OpenStorage,
  request: TreeCopyRequest,
): Promise<VolumeId | undefined> {
  to.requireContent('rootdir')
  const [giving, taking] = [from.trees.copies, to.driver.trees?.copies]
  if (!giving || !taking || giving.kind !== taking.kind) return undefined
  const { onBytes, bytesPerSecond, signal, snapshot: tag } = request
  const tree = { name: source, tag }
  const { sizeBytes, usedBytes } = await from.trees.describe(source)
  const limitBytes = to.features.trees.limits ? (request.limitBytes ?? sizeBytes) : undefined
  const isHere = from.config.name === to.config.name
  if (!isHere) await to.requireRoom(usedBytes, `a copy of volume '${request.source}'`)
  return underFreeTreeName(to, request.vmid, async (name) => {
    if (isHere) await taking.copy(name, tree, limitBytes)
    else {
      const stream = paced(giving.send(tree, signal), bytesPerSecond, signal)
      await taking.receive(name, counted(stream, onBytes), { limitBytes, signal })
    }
    return name
  })
}

async function* counted(stream: AsyncIterable<Uint8Array>, onBytes?: (bytes: number) => void) {
  let bytes = 0
  for await (const part of stream) {
    bytes += part.length
    onBytes?.(bytes)
    yield part
  }
}
