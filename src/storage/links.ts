/**
 * Linked clones, templates and snapshots: the rules; drivers have the hands.
 *
 * A base must outlive every disk linked to it, so it cannot be removed while one is there. Who links and who removes
 * at the same moment exclude each other by the lock of the guest the base belongs to.
 */
import { stat } from 'node:fs/promises'
import { Fault, invalid, isFault } from '#base/fault.ts'
import type { Vmid, VolumeId } from '#base/ids.ts'
import { codeOf } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { convertLayers, measureLayers } from '#host/qemu/qemu-img-layers.ts'
import { type CopyRequest, makeImage } from './allocate.ts'
import { requireSelfContained } from './image-header.ts'
import type { OpenStorage } from './opened.ts'
import type { ImageLinks, Layer } from './plugin.ts'
import { shareContent } from './share-content.ts'
import { type ImageName, isBase, isSameImage, isSameTree, nextImageName, type TreeName, volumeId } from './volume.ts'

/** Each attempt lost to another allocation of the same guest made progress there. */
const nameAttempts = 64

/** @throws Fault `invalid` when the storage has none */
export function linksOf({ config, features, images }: OpenStorage): ImageLinks {
  if (features.linkedClones && images.links) return images.links
  throw invalid({ storage: `storage '${config.name}' of type '${config.type}' has no linked clones` })
}

/** The snapshots of one volume. */
export interface VolumeSnapshots {
  readonly list: () => Promise<string[]>
  readonly take: (tag: string) => Promise<void>
  /** @throws Fault `missing` */
  readonly rollBack: (tag: string) => Promise<void>
  readonly drop: (tag: string) => Promise<void>
  /** They are taken and dropped also while somebody has the volume open, as long as nothing is written at that moment. */
  readonly isTakenOpen: boolean
  /** Where the content of a snapshot is, only to be read: a file, or a folder of files. Undefined: inside the volume. */
  readonly pathOf: (tag: string) => string | undefined
}

/** @throws Fault `failed` in PVE's words when the image can hold none */
export function snapshotsOf({ config, features, images }: OpenStorage, name: ImageName): VolumeSnapshots {
  const { snapshots } = images
  if (!features.snapshots.includes(name.format) || !snapshots) throw noSnapshots(volumeId(config.name, name))
  return {
    list: () => snapshots.list(name),
    take: (tag) => snapshots.take(name, tag),
    rollBack: (tag) => snapshots.rollBack(name, tag),
    drop: (tag) => snapshots.drop(name, tag),
    isTakenOpen: features.openSnapshots.includes(name.format),
    pathOf: (tag) => snapshots.pathOf?.(name, tag),
  }
}

export interface LayeredDisk {
  /** The disk's own file first. */
  readonly layers: [Layer, ...Layer[]]
  readonly sizeBytes: number
}

export async function layersOf({ images }: OpenStorage, name: ImageName): Promise<LayeredDisk> {
  const { sizeBytes } = await images.describe(name)
  if (images.links) return { layers: await images.links.layers(name), sizeBytes }
  const path = images.path(name)
  await requireSelfContained(path, name.format)
  return { layers: [{ path, format: name.format }], sizeBytes }
}

export interface DiskContent extends LayeredDisk {
  /** Look into this snapshot, which lies inside the first layer. */
  readonly inside?: string | undefined
}

/** What a disk holds, or what its snapshot does. @throws Fault `missing` */
export async function contentOf(open: OpenStorage, name: ImageName, snapshot?: string): Promise<DiskContent> {
  const path = snapshot === undefined ? undefined : open.images.snapshots?.pathOf?.(name, snapshot)
  if (path === undefined) return { ...(await layersOf(open, name)), inside: snapshot }
  try {
    return { layers: [{ path, format: name.format }], sizeBytes: (await stat(path)).size }
  } catch (cause) {
    if (codeOf(cause) !== 'ENOENT') throw cause
    throw new Fault('missing', `snapshot '${snapshot}' of volume '${volumeId(open.config.name, name)}' does not exist`)
  }
}

/** A disk on `open` with the content of another. @throws Fault `exhausted`, `aborted` */
export async function copyImage(
  host: Host,
  open: OpenStorage,
  { layers, sizeBytes, inside: snapshot }: DiskContent,
  request: CopyRequest,
): Promise<VolumeId> {
  open.requireContent('images')
  await open.requireRoom(await measureLayers(host, layers), `a copy of volume '${request.source}'`)
  const { format, limitKiB, onProgress, signal } = request
  const isTargetZero = open.features.sparse
  // Whoever has the image open does not write to a snapshot that is a file of its own.
  const isOpen = request.isOpen === true && (request.snapshot === undefined || snapshot !== undefined)
  const how = { layers, snapshot, isOpen, isTargetZero, limitKiB, onProgress, signal }
  const [{ path: source, format: from }, ...below] = layers
  // Who lays out images in advance wants room that is theirs alone.
  const isLaidOut = ['falloc', 'full'].includes(String(open.config.options['preallocation']))
  const isShared = from === 'raw' && format === 'raw' && below.length === 0 && !isOpen && !isLaidOut
  return makeImage(open, request, {
    sizeBytes,
    fill: async (path) => {
      if (isShared && (await shareContent(source, path))) return
      await convertLayers(host, { ...how, target: { path, format } })
    },
  })
}

/** The refusal clients know. @param what cannot hold any */
export function noSnapshots(
  what = 'Some disk of the guest',
  remedy = `${what} cannot hold snapshots: move it to format qcow2 first.`,
): Fault {
  return new Fault('failed', 'snapshot feature is not available', { remedy })
}

/** A new disk of the guest that shows what the base holds. */
export async function linkImage(open: OpenStorage, base: ImageName, vmid: Vmid): Promise<VolumeId> {
  open.requireContent('images')
  const links = linksOf(open)
  if (!isBase(base)) throw new Fault('conflict', `volume '${volumeId(open.config.name, base)}' is no template's disk`)
  for (let attempt = 1; ; attempt += 1) {
    const taken = (await open.images.list(vmid)).map(({ name }) => name)
    const name = links.nameOf(nextImageName(vmid, base.format, taken), base)
    try {
      await links.link(name, base)
      return volumeId(open.config.name, name)
    } catch (error) {
      if (!isFault(error, 'conflict') || attempt === nameAttempts) throw error
    }
  }
}

/** @throws Fault `conflict` in PVE's words while others are linked to this disk or tree */
export async function requireUnlinked(open: OpenStorage, name: ImageName | TreeName): Promise<void> {
  if (!isBase(name)) return
  const linked = name.kind === 'image' ? await imageLinkedTo(open, name) : await treeLinkedTo(open, name)
  if (!linked) return
  const [base, other] = [volumeId(open.config.name, name), volumeId(open.config.name, linked)]
  throw new Fault('conflict', `base volume '${base}' is still in use by linked clone '${other}'`, {
    remedy: `Destroy the clone first, or make it independent by a full clone of it.`,
  })
}

async function imageLinkedTo({ images }: OpenStorage, base: ImageName): Promise<ImageName | undefined> {
  const names = (await images.list()).map(({ name }) => name)
  return names.find(({ parent }) => parent && isSameImage(parent, base))
}

async function treeLinkedTo({ trees }: OpenStorage, base: TreeName): Promise<TreeName | undefined> {
  const names = (await trees.list()).map(({ name }) => name)
  return names.find(({ parent }) => parent && isSameTree(parent, base))
}
