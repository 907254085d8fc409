/**
 * A storage that is configured for this node, enabled and there: its configuration together with its
 * driver, and the questions everybody asks before using it.
 */
import { humanSize } from '#base/bytes.ts'
import { Fault, invalid } from '#base/fault.ts'
import type { VolumeId } from '#base/ids.ts'
import type { StorageConfig } from './config.ts'
import type { FilePart, ImagePart, Part, StorageDriver, StorageFeatures, TreePart, VolumeFacts } from './plugin.ts'
import { contentOf, type ContentType, formatOf, type StoredName, type VolumeName } from './volume.ts'
import { ownerOf, volumeId, type VolumeInfo } from './volume.ts'

/** One volume with the verbs images and files have in common. */
export interface HeldVolume {
  readonly path: string
  readonly describe: () => Promise<VolumeFacts>
  readonly remove: () => Promise<boolean>
  readonly setAside: (mark: string) => Promise<void>
  readonly bringBack: (mark: string) => Promise<void>
  readonly erase: (mark: string) => Promise<void>
}

export class OpenStorage {
  readonly config: StorageConfig
  readonly driver: StorageDriver
  readonly features: StorageFeatures

  constructor(config: StorageConfig, driver: StorageDriver, features: StorageFeatures) {
    this.config = config
    this.driver = driver
    this.features = features
  }

  get images(): ImagePart {
    if (!this.driver.images) throw this.#without('disk images')
    return this.driver.images
  }

  get files(): FilePart {
    if (!this.driver.files) throw this.#without('files')
    return this.driver.files
  }

  get trees(): TreePart {
    if (!this.driver.trees) throw this.#without('files of containers')
    return this.driver.trees
  }

  volume(name: StoredName): HeldVolume {
    switch (name.kind) {
      case 'image':
        return hold(this.images, name)
      case 'tree':
        return hold(this.trees, name)
      case 'file':
        return hold(this.files, name)
      default:
        return name satisfies never
    }
  }

  infoOf({ name, sizeBytes, usedBytes, ctime, notes, protected: isProtected }: VolumeFacts): VolumeInfo {
    const vmid = ownerOf(name)
    return {
      volid: volumeId(this.config.name, name),
      content: contentOf(name),
      format: formatOf(name),
      sizeBytes,
      usedBytes,
      ...(vmid === undefined ? {} : { vmid }),
      ...parentOf(this.config.name, name),
      ctime,
      ...(notes === undefined ? {} : { notes }),
      ...(isProtected ? { protected: true } : {}),
    }
  }

  /** @throws Fault `invalid` when the storage is not configured to hold that */
  requireContent(wanted: ContentType): void {
    const { name, content } = this.config
    if (content.includes(wanted)) return
    throw invalid(
      { storage: `storage '${name}' does not support '${wanted}' content` },
      { remedy: `Allow it: \`hako storage set ${name} --content ${[...content, wanted].join(',')}\`.` },
    )
  }

  /** @throws Fault `exhausted` saying how much is needed, how much there is, and what to do */
  async requireRoom(bytes: number, what: string): Promise<void> {
    const availableBytes = await this.availableBytes()
    if (bytes <= availableBytes) return
    const room = `${humanSize(bytes)} needed, ${humanSize(availableBytes)} available`
    throw new Fault('exhausted', `not enough space on storage '${this.config.name}' for ${what}: ${room}`, {
      remedy: `Free ${humanSize(bytes - availableBytes)} there, or choose another storage.`,
    })
  }

  readonly availableBytes = async (): Promise<number> => (await this.driver.space()).availableBytes

  #without(what: string): Fault {
    return invalid({ storage: `storage '${this.config.name}' of type '${this.config.type}' holds no ${what}` })
  }
}

function parentOf(storage: string, name: VolumeName): { parent?: VolumeId } {
  if (name.kind === 'image' && name.parent) return { parent: volumeId(storage, { kind: 'image', ...name.parent }) }
  if (name.kind === 'tree' && name.parent) return { parent: volumeId(storage, { kind: 'tree', ...name.parent }) }
  return {}
}

function hold<Name extends StoredName>(part: Part<Name>, name: Name): HeldVolume {
  return {
    path: part.path(name),
    describe: () => part.describe(name),
    remove: () => part.remove(name),
    setAside: (mark) => part.setAside(name, mark),
    bringBack: (mark) => part.bringBack(name, mark),
    erase: (mark) => part.erase(name, mark),
  }
}
