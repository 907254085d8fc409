/**
 * Volumes on storages: the rules; drivers have the hands.
 *
 * Whether a volume is in use is for those who know guests to find out before they call `free`. Room is
 * asked for before anything is written, because a full file system stops every guest on it.
 *
 * Who may run beside whom: everything beside everything, in any number of processes. Two allocations
 * never get the same volume; freeing what is gone already is no error.
 */
import { humanSize } from '#base/bytes.ts'
import { Fault, invalid, messageOf } from '#base/fault.ts'
import type { Vmid, VolumeId } from '#base/ids.ts'
import { loaderFor } from '#base/on-demand.ts'
import { convertImage } from '#host/qemu/qemu-img.ts'
import { type Allocation, checkedSize, type CopyRequest, type ImportRequest, makeImage } from './allocate.ts'
import { plantTree, type Rewriting, rewriteImage } from './allocate.ts'
import { ConfiguredStorages } from './configured.ts'
import type * as download from './download.ts'
import { requireSelfContained } from './image-header.ts'
import type * as importing from './import.ts'
import { contentOf, copyImage, type LayeredDisk, layersOf, linkImage } from './links.ts'
import { linksOf, requireUnlinked, snapshotsOf, type VolumeSnapshots } from './links.ts'
import type * as ociPull from './oci-pull.ts'
import type * as placing from './placing.ts'
import type { TreeLayers, VolumeFacts } from './plugin.ts'
import { nameUnder, renameVolume } from './renaming.ts'
import { copyTreeWhole, growTree, linkTree, type TreeCopyRequest, treeLayersOf } from './tree-links.ts'
import { treeLinksOf, treeSnapshotsOf } from './tree-links.ts'
import { type ContentType, formatOf, isBase, isFileContent } from './volume.ts'
import { volumeId, type VolumeInfo } from './volume.ts'

const load = loaderFor(import.meta.url)
const files = () => load<typeof placing>('./placing.ts')

export interface VolumeLocation {
  readonly path: string
  readonly format: string
  readonly sizeBytes: number
}

export class StorageService extends ConfiguredStorages {
  /**
   * Volumes of a storage, by content and name. Restore points are the backup service's to list. Images are of virtual
   * machines and of containers; whose one is, is told by its guest, so both lists hold all of them.
   */
  async content(
    name: string,
    filter: { readonly content?: ContentType | undefined; readonly vmid?: Vmid | undefined } = {},
  ): Promise<VolumeInfo[]> {
    const open = await this.opener.open(name)
    const { config, driver } = open
    const wanted = config.content.filter((one) => filter.content === undefined || one === filter.content)
    const lists: VolumeFacts[][] = []
    const isImages = wanted.includes('images') || wanted.includes('rootdir')
    if (isImages && driver.images) lists.push(await driver.images.list(filter.vmid))
    if (wanted.includes('rootdir') && driver.trees) lists.push(await driver.trees.list(filter.vmid))
    for (const one of wanted) {
      if ((isFileContent(one) || one === 'backup') && driver.files) lists.push(await driver.files.list(one))
    }
    const all = lists.flat().map((facts) => open.infoOf(facts))
    return filter.vmid === undefined ? all : all.filter(({ vmid }) => vmid === filter.vmid)
  }

  /** @throws Fault `missing` */
  async describe(volid: VolumeId): Promise<VolumeInfo> {
    const { open, volume } = await this.opener.hold(volid)
    return open.infoOf(await volume.describe())
  }

  /**
   * Where a volume's bytes are, for somebody who is about to open this one file.
   * @throws Fault `missing`; `invalid` when it refers to something else: a linked clone (see `layers` and
   *   `treeLayers`), or an image into which its guest's QEMU has written so
   */
  async location(volid: VolumeId): Promise<VolumeLocation> {
    const { volume } = await this.opener.hold(volid)
    const { name, sizeBytes } = await volume.describe()
    if (name.kind === 'image') await requireSelfContained(volume.path, name.format)
    if (name.kind === 'tree' && name.parent) {
      throw invalid({ volume: `volume '${volid}' is a linked clone: it is shown together with what it is based on` })
    }
    return { path: volume.path, format: formatOf(name), sizeBytes }
  }

  /**
   * The files that make up a disk, its own first: one, and for a linked clone the template's below it. Each refers to
   * exactly the next, so all may be opened.
   * @throws Fault `missing`; `invalid` when one refers to anything else
   */
  async layers(volid: VolumeId): Promise<LayeredDisk> {
    const { open, name } = await this.opener.image(volid)
    return layersOf(open, name)
  }

  /** How a container's files are shown: as one folder, or as layers over those of a template. @throws Fault `missing` */
  async treeLayers(volid: VolumeId): Promise<TreeLayers> {
    const { open, name } = await this.opener.tree(volid)
    return treeLayersOf(open, name)
  }

  /** A new volume that holds only what differs from that of a template. @throws Fault `conflict`, `invalid` */
  async link(base: VolumeId, vmid: Vmid): Promise<VolumeId> {
    const { open, name } = await this.opener.disk(base)
    return name.kind === 'tree' ? linkTree(open, name, vmid) : linkImage(open, name, vmid)
  }

  /** The format a volume linked to that one would have. @throws Fault `invalid` when the storage has no linked clones */
  async linkedFormat(base: VolumeId): Promise<string> {
    const { open, name } = await this.opener.disk(base)
    if (name.kind === 'tree') return formatOf(treeLinksOf(open).nameOf(name, name))
    return formatOf(linksOf(open).nameOf(name, name))
  }

  /** A new disk that stands on its own, with the content of another or of its snapshot. @throws Fault `exhausted`, `aborted` */
  async copy(request: CopyRequest): Promise<VolumeId> {
    const { open, name } = await this.opener.image(request.source)
    const content = await contentOf(open, name, request.snapshot)
    return copyImage(this.needs.host, await this.opener.open(request.storage), content, request)
  }

  /**
   * A new folder of a container's files with the content of another or of its snapshot, copied by the file system.
   * Undefined, and nothing is done, where files have to be copied one by one. @throws Fault `exhausted`, `aborted`
   */
  async copyTree(request: TreeCopyRequest): Promise<VolumeId | undefined> {
    const { open, name } = await this.opener.tree(request.source)
    return copyTreeWhole(open, name, await this.opener.open(request.storage), request)
  }

  /** Makes a volume one that others can be linked to, and returns what it is called then. Repeating is harmless. */
  async freeze(volid: VolumeId): Promise<VolumeId> {
    const { open, name } = await this.opener.disk(volid)
    const frozen = name.kind === 'tree' ? treeLinksOf(open).freeze(name) : linksOf(open).freeze(name)
    return volumeId(open.config.name, await frozen)
  }

  /** Undoes `freeze`, given the name it returned. @throws Fault `conflict` when others are linked to it */
  async unfreeze(base: VolumeId): Promise<VolumeId> {
    const { open, name } = await this.opener.disk(base)
    await requireUnlinked(open, name)
    const plain = name.kind === 'tree' ? treeLinksOf(open).unfreeze(name) : linksOf(open).unfreeze(name)
    return volumeId(open.config.name, await plain)
  }

  /**
   * Snapshots of a disk nobody has open, or that is of `openSnapshots`, or of a container's files. Verbs may be
   * repeated. @throws Fault 'snapshot feature is not available' for a volume that can hold none
   */
  async snapshots(volid: VolumeId): Promise<VolumeSnapshots> {
    const { open, name } = await this.opener.disk(volid)
    return name.kind === 'tree' ? treeSnapshotsOf(open, name) : snapshotsOf(open, name)
  }

  /** A new empty disk. @throws Fault `exhausted`, `conflict` when the wished name is taken, `invalid` */
  allocate(request: Allocation): Promise<VolumeId> {
    return this.#allocate(request)
  }

  /**
   * As `allocate`, for a QEMU that lays the image out itself: so far it is a file with nothing in it, which takes no more room
   * than what is written.
   */
  async allocateBlank(
    request: Omit<Allocation, 'format'>,
  ): Promise<{ readonly volid: VolumeId; readonly path: string }> {
    const volid = await this.#allocate({ ...request, format: 'qcow2' }, true)
    return { volid, path: (await this.opener.hold(volid)).volume.path }
  }

  async #allocate(request: Allocation, isBlank = false): Promise<VolumeId> {
    const open = await this.opener.open(request.storage)
    open.requireContent(request.content ?? 'images')
    const sizeBytes = checkedSize(request.sizeBytes)
    await open.requireRoom(request.neededBytes ?? sizeBytes, `a disk of guest ${request.vmid}`)
    return makeImage(open, request, { sizeBytes, isBlank })
  }

  /**
   * A new folder of a container's files, put there by `fill` before it is seen.
   * @param limitBytes the size it is held to, on a storage whose features say `limits`
   * @throws Fault `exhausted`, `invalid`
   */
  async plantTree(
    storage: string,
    vmid: Vmid,
    fill: (path: string) => Promise<void>,
    limitBytes?: number,
  ): Promise<VolumeId> {
    return plantTree(await this.opener.open(storage), vmid, fill, limitBytes)
  }

  /**
   * A new disk with the content of an image file. Images that refer to other files are refused.
   * @throws Fault `invalid`, `damaged`, `exhausted`, `aborted`
   */
  async importImage(request: ImportRequest): Promise<VolumeId> {
    const { host } = this.needs
    const { onProgress, signal, format } = request
    const open = await this.opener.open(request.storage)
    open.requireContent('images')
    const { source: file, sourcePart: part, sourceFormat } = request
    const { formatByEnding, inspectImage } = load<typeof importing>('./import.ts')
    const source = await inspectImage(host, { path: file, format: sourceFormat ?? formatByEnding(file), part })
    const sizeBytes = checkedSize(source.sizeBytes)
    await open.requireRoom(source.neededBytes, `a copy of '${request.source}'`)
    const isTargetZero = open.features.sparse
    return makeImage(open, request, {
      sizeBytes,
      fill: (path) => convertImage(host, { source, target: { path, format }, isTargetZero, onProgress, signal }),
    })
  }

  /** Replaces a disk's whole content, or makes the disk. Who has it open keeps the old content. @throws Fault `exhausted` */
  async rewrite(volid: VolumeId, content: Rewriting): Promise<void> {
    const { open, name } = await this.opener.image(volid)
    await rewriteImage(this.needs.host, open, name, content)
  }

  /** Destroys a volume; one that is gone already is no error. @throws Fault `conflict` when others are linked to it */
  async free(volid: VolumeId): Promise<void> {
    await (await this.opener.holdUnlinked(volid)).remove()
  }

  /**
   * Destroys every disk of a guest, on one storage or on all that are enabled here.
   * @throws Fault `failed` naming the storages it could not look into, after it has done all others
   */
  async freeOwnedBy(vmid: Vmid, storage?: string): Promise<void> {
    const configs = storage === undefined ? await this.list() : [await this.get(storage)]
    const failures: string[] = []
    for (const config of configs.filter((one) => this.opener.isEnabledHere(one))) {
      try {
        const { driver } = await this.opener.open(config.name)
        for (const { name } of (await driver.images?.list(vmid)) ?? []) await driver.images?.remove(name)
        for (const { name } of (await driver.trees?.list(vmid)) ?? []) await driver.trees?.remove(name)
        // Half a disk of a killed process would outlive its guest.
        await driver.sweep()
      } catch (error) {
        this.needs.log.error(`disks of guest ${vmid} on storage '${config.name}' are not freed`, { error })
        failures.push(`${config.name}: ${messageOf(error)}`)
      }
    }
    if (failures.length === 0) return
    throw new Fault('failed', `disks of guest ${vmid} may remain on ${failures.join('; ')}`)
  }

  /**
   * Makes a disk larger that nobody has open, or what a container's files are held to, used or not.
   * @throws Fault `invalid` for less than it has, `exhausted`
   */
  async resize(volid: VolumeId, sizeBytes: number): Promise<void> {
    const { open, name } = await this.opener.disk(volid)
    const wanted = checkedSize(sizeBytes)
    if (name.kind === 'tree') return growTree(open, name, wanted)
    const now = (await open.images.describe(name)).sizeBytes
    if (wanted < now) throw invalid({ size: `shrinking disks is not supported (it has ${humanSize(now)})` })
    if (wanted === now) return
    await open.requireRoom(wanted - now, `the growth of volume '${volid}'`)
    await open.images.grow(name, wanted)
  }

  /** What a disk or a container's files would be called as that guest's. */
  async nameFor(volid: VolumeId, vmid: Vmid): Promise<VolumeId> {
    const { open, name } = await this.opener.disk(volid)
    return volumeId(open.config.name, await nameUnder(open, name, vmid))
  }

  /**
   * Gives a volume nobody uses another name on its storage, that of another guest's. Harmless when it has it.
   * @throws Fault `missing`; `conflict` for a template's volume, and when the name is taken
   */
  async rename(volid: VolumeId, other: VolumeId): Promise<void> {
    const { open, name } = await this.opener.disk(volid)
    await renameVolume(open, name, (await this.opener.disk(other)).name)
  }

  /** Makes a disk the property of a guest's user, or of root again (uid 0). */
  async giveTo(volid: VolumeId, uid: number): Promise<void> {
    const { open, name } = await this.opener.image(volid)
    if (uid !== 0 && isBase(name)) throw new Fault('conflict', `volume '${volid}' is a template's disk and only read`)
    await open.images.giveTo(name, uid)
  }

  /**
   * Copies and checks a file out of sight; `publishFile` shows it. Returns its identity for `withdrawFile`.
   * @throws Fault `invalid`, `damaged` when the checksum differs, `exhausted`
   */
  async stageFile(placement: placing.FilePlacement): Promise<string> {
    return files().stageFile(this.needs.host, await this.opener.open(placement.storage), placement)
  }

  /** Takes a file from a web server, out of sight; `publishFile` shows it. Returns its identity for `withdrawFile`. */
  async stageDownload(wanted: download.Download): Promise<string> {
    const { stageDownload } = load<typeof download>('./download.ts')
    return stageDownload(this.needs.host, await this.opener.open(wanted.storage), wanted)
  }

  /** Takes an image of a registry, out of sight; `publishFile` shows it. Returns its identity for `withdrawFile`. */
  async stageOciPull(pull: ociPull.OciPull): Promise<string> {
    const { stageOciPull } = load<typeof ociPull>('./oci-pull.ts')
    return stageOciPull(this.needs.host, await this.opener.open(pull.storage), pull)
  }

  /** Shows a staged file. What it replaces is kept out of sight until `erase` under the same mark. */
  async publishFile(volid: VolumeId, mark: string): Promise<void> {
    await files().publishFile((await this.opener.hold(volid)).open, volid, mark)
  }

  /** Undoes `publishFile`; harmless when it did not happen. */
  async withdrawFile(volid: VolumeId, mark: string, identity: string): Promise<void> {
    await files().withdrawFile((await this.opener.hold(volid)).open, volid, mark, identity)
  }

  /** Removes a staged file; harmless when it is gone or was published. */
  async discardStaged(volid: VolumeId, mark: string): Promise<void> {
    await files().discardStaged((await this.opener.hold(volid)).open, volid, mark)
  }

  /**
   * Takes a volume out of sight under a mark, before `erase` or `bringBack`.
   * @throws Fault `missing`, `conflict` when others are linked to it
   */
  async setAside(volid: VolumeId, mark: string): Promise<void> {
    await (await this.opener.holdUnlinked(volid)).setAside(mark)
  }

  /** Undoes `setAside`; harmless when it did not happen. */
  async bringBack(volid: VolumeId, mark: string): Promise<void> {
    await (await this.opener.hold(volid)).volume.bringBack(mark)
  }

  /** Destroys what was set aside. */
  async erase(volid: VolumeId, mark: string): Promise<void> {
    await (await this.opener.hold(volid)).volume.erase(mark)
  }

  /** Changes notes or protection of an archive. @throws Fault `missing`; `invalid` for any other file */
  async annotate(
    volid: VolumeId,
    change: { notes?: string | undefined; protected?: boolean | undefined },
  ): Promise<void> {
    await files().annotateFile((await this.opener.hold(volid)).open, volid, change)
  }
}
