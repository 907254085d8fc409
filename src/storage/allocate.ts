/**
 * New disks: their size, their name, and who wins when two want the same.
 */
import { stat } from 'node:fs/promises'
import { humanSize, TiB } from '#base/bytes.ts'
import { invalid, isFault } from '#base/fault.ts'
import type { Vmid, VolumeId } from '#base/ids.ts'
import type { Host } from '#host/host.ts'
import { convertImage, type DiskFormat, type ImagePlace } from '#host/qemu/qemu-img.ts'
import { namingFullStorage } from './full.ts'
import type { OpenStorage } from './opened.ts'
import type { NewVolume } from './plugin.ts'
import {
  type ImageFormat,
  type ImageName,
  nextImageName,
  nextTreeName,
  type TreeName,
  volumeId,
  wishedImageName,
} from './volume.ts'

/** Larger than any disk a guest can use, small enough for every arithmetic. */
export const MAX_IMAGE_BYTES = 64 * TiB
const SECTOR_BYTES = 512
/** Each attempt lost to another allocation of the same guest made progress there. */
const NAME_ATTEMPTS = 64

export interface Allocation {
  readonly storage: string
  readonly vmid: Vmid
  /** Rounded up to whole sectors. */
  readonly sizeBytes: number
  readonly format: ImageFormat
  /** What the storage must be allowed to hold: by default disks of virtual machines. */
  readonly content?: 'images' | 'rootdir' | undefined
  /** Wished name, as `vm-100-cloudinit`; otherwise the next free `vm-100-disk-<n>`. */
  readonly name?: string | undefined
  /** Room to ask for. Default: the whole size; less when the writer knows how much it will write. */
  readonly neededBytes?: number | undefined
}

export interface ImportRequest {
  readonly storage: string
  readonly vmid: Vmid
  /** Absolute path of the image to copy. */
  readonly source: string
  /** Default: by the ending of `source`; never by its content. */
  readonly sourceFormat?: DiskFormat | undefined
  /** The image is a part of that file: a member of an archive. */
  readonly sourcePart?: ImagePlace['part']
  readonly format: ImageFormat
  readonly onProgress?: ((fraction: number) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

export interface CopyRequest {
  readonly source: VolumeId
  /** Copy what this snapshot of the source holds. */
  readonly snapshot?: string | undefined
  /** The guest of the source runs; allowed only with a snapshot. */
  readonly isOpen?: boolean | undefined
  readonly storage: string
  /** Guest the copy belongs to. */
  readonly vmid: Vmid
  /** Wished name; otherwise the next free one. */
  readonly name?: string | undefined
  readonly format: ImageFormat
  /** KiB per second; 0 and absent: no limit. */
  readonly limitKiB?: number | undefined
  readonly onProgress?: ((fraction: number) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

/** A new image under the wished or the next free name. */
export async function makeImage(
  open: OpenStorage,
  wish: Pick<Allocation, 'vmid' | 'format' | 'name'>,
  volume: NewVolume,
): Promise<VolumeId> {
  const { config, features, images } = open
  const { vmid, format } = wish
  if (!features.formats.includes(format)) {
    throw invalid({ format: `storage '${config.name}' cannot hold images of format '${format}'` })
  }
  if (wish.name !== undefined) {
    const name = wishedImageName(vmid, wish.name, format)
    await create(open, name, volume)
    return volumeId(config.name, name)
  }
  for (let attempt = 1; ; attempt += 1) {
    const taken = (await images.list(vmid)).map((facts) => facts.name)
    const name = nextImageName(vmid, format, taken)
    try {
      await create(open, name, volume)
      return volumeId(config.name, name)
    } catch (error) {
      if (!isFault(error, 'conflict') || attempt === NAME_ATTEMPTS) throw error
    }
  }
}

async function create(open: OpenStorage, name: ImageName, volume: NewVolume): Promise<void> {
  const { availableBytes, config, images } = open
  const writing = { storage: config.name, what: `a disk of guest ${name.vmid}`, availableBytes }
  await namingFullStorage(writing, () => images.create(name, volume))
}

/** A new tree under the next free name. `fill` is called once more when somebody else took the name first. */
export async function plantTree(
  open: OpenStorage,
  vmid: Vmid,
  fill: (path: string) => Promise<void>,
  limitBytes?: number,
): Promise<VolumeId> {
  open.requireContent('rootdir')
  const { availableBytes, config, features, trees } = open
  if (limitBytes !== undefined && !features.trees.limits) {
    throw invalid({ size: `storage '${config.name}' of type '${config.type}' holds no files of containers to a size` })
  }
  const writing = { storage: config.name, what: `the files of guest ${vmid}`, availableBytes }
  return underFreeTreeName(open, vmid, async (name) => {
    await namingFullStorage(writing, () => trees.create(name, fill, limitBytes))
    return name
  })
}

/** @param make makes a tree of that name, or of one that follows from it; called again when somebody else took it first */
export async function underFreeTreeName(
  { config, trees }: OpenStorage,
  vmid: Vmid,
  make: (name: TreeName) => Promise<TreeName>,
): Promise<VolumeId> {
  for (let attempt = 1; ; attempt += 1) {
    const taken = (await trees.list(vmid)).map((facts) => facts.name)
    try {
      return volumeId(config.name, await make(nextTreeName(vmid, taken)))
    } catch (error) {
      if (!isFault(error, 'conflict') || attempt === NAME_ATTEMPTS) throw error
    }
  }
}

/** What an image is to hold from now on. */
export interface Rewriting {
  /** Absolute path of a raw image of our own making, no larger than the new one. */
  readonly source: string
  readonly sizeBytes: number
}

/** Replaces an image's whole content in one act, and makes the image when it is not there. */
export async function rewriteImage(host: Host, open: OpenStorage, name: ImageName, wish: Rewriting): Promise<void> {
  const { config, availableBytes, features, images } = open
  open.requireContent('images')
  const [sizeBytes, what] = [checkedSize(wish.sizeBytes), `volume '${volumeId(config.name, name)}'`]
  const neededBytes = features.sparse ? (await stat(wish.source)).size : sizeBytes
  await open.requireRoom(neededBytes, what)
  const source = { path: wish.source, format: 'raw' as const }
  await namingFullStorage({ storage: config.name, what, neededBytes, availableBytes }, () =>
    images.replace(name, {
      sizeBytes,
      fill: (path) =>
        convertImage(host, { source, target: { path, format: name.format }, isTargetZero: features.sparse }),
    }),
  )
}

/** In whole sectors. @throws Fault `invalid` */
export function checkedSize(sizeBytes: number): number {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 1 || sizeBytes > MAX_IMAGE_BYTES) {
    throw invalid({ size: `a disk has from 1 byte to ${humanSize(MAX_IMAGE_BYTES)}, not ${sizeBytes} bytes` })
  }
  return Math.ceil(sizeBytes / SECTOR_BYTES) * SECTOR_BYTES
}
