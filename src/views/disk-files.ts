/**
 * The disks in a backup of a virtual machine as one tree: `scsi0/part/1/etc/hostname`, `scsi0/lvm/group/volume/…`,
 * `scsi0/raw/…` where the file system is on the disk itself. What is on them a file machine tells.
 */
import type { VolumeId } from '#base/ids.ts'
import { Fault } from '#base/fault.ts'
import type { Manifest } from '#datastore/points/manifest.ts'
import type { ReadEntry, ReadTree } from '#datastore/tree/read-tree.ts'
import { textOf } from '#datastore/tree/reader.ts'
import type { FoundEntry } from '#recovery/file-machine/entry.ts'
import type { BackupDisks, DiskPlace, FileMachines, WhereOnDisk } from '#recovery/file-machine/service.ts'

export interface DiskEntry extends ReadEntry {
  /** Stands for a disk, or what one is divided into. */
  readonly isVirtual?: boolean
  readonly where?: WhereOnDisk
}

/** Folders from a disk to the root of a file system on it, the disk counted. */
const depths: Readonly<Record<string, number>> = { raw: 2, part: 3, lvm: 4 }

export class BackupDiskTree implements ReadTree<DiskEntry> {
  readonly #machines: FileMachines
  readonly #disks: BackupDisks
  readonly #seconds: number

  constructor(machines: FileMachines, volid: VolumeId, { disks, finished }: Manifest) {
    this.#machines = machines
    this.#disks = { from: volid, disks: disks.map(({ name, sizeBytes }) => ({ name, sizeBytes })) }
    this.#seconds = finished
  }

  readonly entry = async (path: string): Promise<DiskEntry> => {
    const where = this.#whereOf(path)
    if (where?.path) return this.#entryOnDisk(path, where)
    const above = path.slice(0, Math.max(0, path.lastIndexOf('/')))
    if (path === '') return this.#virtual('', 0)
    for await (const entry of this.#listParts(above, path)) if (entry.path === path) return entry
    throw this.#absent(path)
  }

  async #entryOnDisk(path: string, where: WhereOnDisk): Promise<DiskEntry> {
    const found = await this.#machines.entry(this.#disks, where)
    if (!found) throw this.#absent(path)
    return this.#found(path, where, found)
  }

  #absent(path: string): Fault {
    const { from } = this.#disks
    return new Fault('missing', `'/${textOf(path)}' does not exist`, {
      remedy: `A path begins with a disk, as /scsi0/part/1/etc does; the disks are listed by: hako backup files ${from}`,
    })
  }

  readonly list = (path: string): AsyncIterable<DiskEntry> => {
    const where = this.#whereOf(path)
    return where ? this.#listOnDisk(path, where) : this.#listParts(path)
  }

  readonly entries = (path: string): AsyncIterable<DiskEntry> => this.#entries(path)

  readonly content = ({ where, sizeBytes }: DiskEntry): AsyncIterable<Buffer> => {
    if (!where) throw new Fault('invalid', 'it is no file')
    return this.#machines.content(this.#disks, where, sizeBytes)
  }

  readonly attributes = async () => []

  async *#ranges({ sizeBytes }: DiskEntry) {
    if (sizeBytes > 0) yield { offset: 0, length: sizeBytes }
  }

  readonly ranges = (entry: DiskEntry) => this.#ranges(entry)

  readonly parts = (entry: DiskEntry): AsyncIterable<{ readonly bytes: Buffer }> => this.#parts(entry)

  async *#parts(entry: DiskEntry) {
    for await (const bytes of this.content(entry)) yield { bytes }
  }

  async *#entries(path: string): AsyncGenerator<DiskEntry> {
    const entry = await this.entry(path)
    yield entry
    if (entry.kind !== 'directory') return
    const where = this.#whereOf(path)
    if (where) {
      for await (const found of this.#machines.entries(this.#disks, where, true)) {
        yield this.#found(joined(path, found.path), { ...where, path: joined(where.path, found.path) }, found)
      }
      return
    }
    for await (const part of this.#listParts(path)) yield* this.#entries(part.path)
  }

  async *#listOnDisk(path: string, where: WhereOnDisk): AsyncGenerator<DiskEntry> {
    for await (const found of this.#machines.entries(this.#disks, where)) {
      yield this.#found(joined(path, found.path), { ...where, path: joined(where.path, found.path) }, found)
    }
  }

  /** Disks, kinds of their parts, and those. @param wanted what was asked for */
  async *#listParts(path: string, wanted = path): AsyncGenerator<DiskEntry> {
    if (path === '') {
      for (const { name, sizeBytes } of this.#disks.disks) yield this.#virtual(name, sizeBytes)
      return
    }
    const [disk = ''] = path.split('/')
    if (!this.#disks.disks.some(({ name }) => name === disk)) throw this.#absent(wanted)
    const places = await this.#machines.places(this.#disks, disk)
    const told = new Set<string>()
    for (const { place, sizeBytes } of places.filter(holdsFiles)) {
      const whole = `${disk}/${place}`
      if (!whole.startsWith(`${path}/`)) continue
      const [name = ''] = whole.slice(path.length + 1).split('/')
      if (told.has(name)) continue
      told.add(name)
      yield this.#virtual(`${path}/${name}`, `${path}/${name}` === whole ? sizeBytes : 0)
    }
    if (told.size === 0 && path !== disk) throw this.#absent(wanted)
  }

  /** Nothing above a file system. @throws Fault `invalid` for a part that cannot be */
  #whereOf(path: string): WhereOnDisk | undefined {
    const [disk = '', kind = '', ...rest] = path.split('/')
    const depth = depths[kind]
    if (depth === undefined || rest.length + 2 < depth) return undefined
    const place = [kind, ...rest.slice(0, depth - 2)]
    if (!place.every((name) => /^[A-Za-z0-9+_.-]{1,128}$/.test(name) && name !== '.' && name !== '..')) {
      throw this.#absent(path)
    }
    return { disk, place: place.join('/'), path: rest.slice(depth - 2).join('/') }
  }

  #found(path: string, where: WhereOnDisk, found: FoundEntry): DiskEntry {
    return { ...found, path, name: path.slice(path.lastIndexOf('/') + 1), where }
  }

  #virtual(path: string, sizeBytes: number): DiskEntry {
    return {
      path,
      name: path.slice(path.lastIndexOf('/') + 1),
      kind: 'directory',
      mode: 0o755,
      uid: 0,
      gid: 0,
      sizeBytes,
      modified: { seconds: this.#seconds, nanoseconds: 0 },
      isVirtual: true,
    }
  }
}

/** A part of a group of volumes has its files in those. */
function holdsFiles({ fileSystem }: DiskPlace): boolean {
  return fileSystem !== '' && fileSystem !== 'LVM2_member' && fileSystem !== 'swap'
}

function joined(above: string, below: string): string {
  if (below === '') return above
  return above === '' ? below : `${above}/${below}`
}
