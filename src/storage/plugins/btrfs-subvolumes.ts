/**
 * Volumes that are subvolumes, whatever is in them: how they come, go, and have snapshots.
 *
 * A volume is made under an unfinished name and then renamed, which the kernel refuses when there is such a subvolume
 * already, so of several who want the name exactly one has it. Its snapshots lie beside it, `<volume>@<tag>`, as in
 * PVE, and can only be read. Wherever it goes they go with it: at every moment there are none without their volume, or
 * the next one of that name would inherit them.
 *
 * Subvolumes that were made inside a volume, which guests can do, would be missing in its snapshots and lost in a
 * roll-back. Nothing is done then, and it is said.
 */
import { mkdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { Fault } from '#base/fault.ts'
import { createSubvolume, isSubvolume, limitSubvolume, quotasOf, removeSubvolume } from '#host/disks/btrfs.ts'
import { setReadOnly, snapshotSubvolume, subvolumeId, subvolumesIn } from '#host/disks/btrfs.ts'
import { exchange } from '#host/files/exchange.ts'
import { asFileFault, codeOf, syncDirectory } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import type { Part, Rename } from '../plugin.ts'
import { filesIn, newUnfinished } from '../unfinished.ts'
import { type ImageName, type TreeName, volumeId } from '../volume.ts'
import { removeIfEmpty } from './dir-images.ts'
import { imageFolder, type Layout, makeFolder, makeFoldersFor, PASSABLE } from './dir-paths.ts'
import { hiddenPath, noVolume } from './dir-volumes.ts'

export interface SubvolumePlace {
  readonly layout: Layout
  readonly storage: string
  readonly host: Host
}

export interface SubvolumeKind {
  /** Guests write into the folder itself. */
  readonly isOpenToGuests: boolean
  /** Removes what is large in a subvolume that goes: its room comes back at once, the rest when the kernel gets to it. */
  readonly empty?: (path: string) => Promise<void>
}

const tagPattern = /^[A-Za-z0-9_-]{1,64}$/

export class Subvolumes<Name extends ImageName | TreeName> {
  readonly #place: SubvolumePlace
  /** The subvolume of a volume. */
  readonly home: (name: Name) => string
  readonly #kind: SubvolumeKind

  constructor(place: SubvolumePlace, home: (name: Name) => string, kind: SubvolumeKind) {
    this.#place = place
    this.home = home
    this.#kind = kind
  }

  /** An empty one, filled before it is seen. @throws Fault `conflict` when the name is taken */
  async create(name: Name, fill: (path: string) => Promise<void>): Promise<void> {
    const { host } = this.#place
    await this.#make(name, async (path) => {
      await createSubvolume(host, path)
      await fill(path)
    })
  }

  /** One with the content of a subvolume there is, changed before it is seen. @throws Fault `conflict` when the name is taken */
  async copy(name: Name, from: string, change: (path: string) => Promise<void>): Promise<void> {
    await this.requireWhole(from)
    const { host } = this.#place
    await this.#make(name, async (path) => {
      await snapshotSubvolume(host, from, path, { isReadOnly: false })
      await change(path)
    })
  }

  /**
   * One that comes as a stream.
   * @param fill puts it into an empty folder, only to be read
   */
  async receive(
    name: Name,
    fill: (inbox: string) => Promise<void>,
    change: (path: string) => Promise<void>,
  ): Promise<void> {
    const { host } = this.#place
    await this.#make(name, async (path) => {
      const inbox = await this.newPath(name)
      try {
        await mkdir(inbox, { mode: 0o700 })
        await fill(inbox)
        const [file = '', ...others] = await filesIn(inbox)
        const arrived = join(inbox, file)
        if (others.length > 0 || !(await isSubvolume(arrived))) {
          throw new Fault('damaged', 'what was received is not one subvolume')
        }
        await snapshotSubvolume(host, arrived, path, { isReadOnly: false })
        await change(path)
      } finally {
        await this.discard(inbox)
      }
    })
  }

  /** @param make makes the subvolume at a path where nothing is */
  async #make(name: Name, make: (path: string) => Promise<void>): Promise<void> {
    const { storage } = this.#place
    const home = this.home(name)
    const unfinished = await this.newPath(name)
    try {
      await make(unfinished)
      await rename(unfinished, home)
    } catch (cause) {
      if (['ENOTEMPTY', 'EEXIST', 'ENOTDIR'].includes(codeOf(cause) ?? '')) {
        throw new Fault('conflict', `volume '${volumeId(storage, name)}' already exists`, { cause })
      }
      throw asFileFault(cause, home)
    } finally {
      await this.discard(unfinished)
      await removeIfEmpty(dirname(home))
    }
    await syncDirectory(dirname(home))
  }

  /** A path beside the volume's, where nothing is and that is this process's. Others may remove the emptied folder meanwhile. */
  async newPath(name: Name): Promise<string> {
    const { layout } = this.#place
    const folder = imageFolder(layout, name.vmid)
    for (let attempt = 0; ; attempt += 1) {
      try {
        await makeFoldersFor(layout, 'images')
        await makeFolder(folder, PASSABLE)
        const path = await newUnfinished(folder, '.subvol')
        await rm(path)
        return path
      } catch (cause) {
        if (codeOf(cause) !== 'ENOENT' || attempt === 2) throw asFileFault(cause, folder)
      }
    }
  }

  /** Takes another name. Harmless when it has it. @throws Fault `missing`, `conflict` */
  async rename(name: Name, other: Name): Promise<void> {
    const [from, to] = [this.home(name), this.home(other)]
    const isThere = await isSubvolume(to)
    if (!(await isSubvolume(from))) {
      if (isThere) return
      throw noVolume(this.#place.storage, name)
    }
    if (isThere) throw new Fault('conflict', `volume '${volumeId(this.#place.storage, other)}' already exists`)
    await makeFolder(dirname(to), PASSABLE)
    await rename(from, to)
    await syncDirectory(dirname(to))
    await removeIfEmpty(dirname(from))
  }

  leaving(): Pick<Part<Name>, 'remove' | 'setAside' | 'bringBack' | 'erase'> & { readonly rename: Rename<Name> } {
    const aside = (name: Name, mark: string) => hiddenPath(this.home(name), 'gone', mark)
    return {
      rename: (name, other) => this.rename(name, other),
      remove: async (name) => {
        const home = this.home(name)
        if (!(await isSubvolume(home))) return false
        for (const tag of await this.tagsOf(home)) await this.discard(`${home}@${tag}`)
        const gone = await this.newPath(name)
        await rename(home, gone)
        await this.discard(gone)
        await removeIfEmpty(dirname(home))
        return true
      },
      setAside: async (name, mark) => {
        const [home, hidden] = [this.home(name), aside(name, mark)]
        if (await isSubvolume(hidden)) return
        if (!(await isSubvolume(home))) throw noVolume(this.#place.storage, name)
        for (const tag of await this.tagsOf(home)) await rename(`${home}@${tag}`, `${hidden}@${tag}`)
        await rename(home, hidden)
        await syncDirectory(dirname(home))
      },
      bringBack: async (name, mark) => {
        const [home, hidden] = [this.home(name), aside(name, mark)]
        if (await isSubvolume(hidden)) {
          if (await isSubvolume(home)) {
            throw new Fault('conflict', `volume '${volumeId(this.#place.storage, name)}' already exists`)
          }
          await rename(hidden, home)
        }
        for (const tag of await this.tagsOf(hidden)) await rename(`${hidden}@${tag}`, `${home}@${tag}`)
        if (await isSubvolume(home)) await syncDirectory(dirname(home))
      },
      erase: async (name, mark) => {
        const hidden = aside(name, mark)
        for (const tag of await this.tagsOf(hidden)) await this.discard(`${hidden}@${tag}`)
        await this.discard(hidden)
        await removeIfEmpty(dirname(hidden))
      },
    }
  }

  /** Tags of snapshots, the oldest first. */
  async tags(name: Name): Promise<string[]> {
    if (!(await isSubvolume(this.home(name)))) throw noVolume(this.#place.storage, name)
    return this.tagsOf(this.home(name))
  }

  async tagsOf(home: string): Promise<string[]> {
    const [folder, prefix] = [dirname(home), `${basename(home)}@`]
    const files = (await filesIn(folder)).filter((file) => file.startsWith(prefix))
    const found: { tag: string; id: number }[] = []
    for (const file of files) {
      const path = join(folder, file)
      if (await isSubvolume(path)) found.push({ tag: file.slice(prefix.length), id: subvolumeId(path) })
    }
    return found.toSorted((a, b) => a.id - b.id).map(({ tag }) => tag)
  }

  /** Where a snapshot is, or would be. */
  tagged(name: Name, tag: string): string {
    if (!tagPattern.test(tag)) throw new Error(`'${tag}' is no tag`)
    return `${this.home(name)}@${tag}`
  }

  async take(name: Name, tag: string): Promise<void> {
    const [home, snapshot] = [this.home(name), this.tagged(name, tag)]
    if ((await this.tags(name)).includes(tag)) return
    await this.requireWhole(home)
    await snapshotSubvolume(this.#place.host, home, snapshot, { isReadOnly: true })
  }

  /** The volume is at every moment what it was or what it becomes. */
  async rollBack(name: Name, tag: string): Promise<void> {
    const { host } = this.#place
    const [home, snapshot] = [this.home(name), this.tagged(name, tag)]
    await this.requireSnapshot(name, tag)
    await this.requireWhole(home)
    const fresh = await this.newPath(name)
    try {
      await snapshotSubvolume(host, snapshot, fresh, { isReadOnly: false })
      const limitBytes = (await quotasOf(host, home))?.of.get(subvolumeId(home))?.limitBytes
      if (limitBytes !== undefined) await limitSubvolume(host, fresh, limitBytes)
      exchange(home, fresh)
      await syncDirectory(dirname(home))
    } finally {
      await this.discard(fresh)
    }
  }

  async drop(name: Name, tag: string): Promise<void> {
    await this.discard(this.tagged(name, tag))
  }

  /** @throws Fault `missing` */
  async requireSnapshot(name: Name, tag: string): Promise<void> {
    if ((await this.tags(name)).includes(tag)) return
    throw new Fault('missing', `snapshot '${tag}' of volume '${volumeId(this.#place.storage, name)}' does not exist`)
  }

  /** Turns a volume into one that is only read, under another name, and back. Repeating is harmless. */
  async seal(name: Name, sealed: Name): Promise<void> {
    const home = this.home((await isSubvolume(this.home(name))) ? name : sealed)
    if (await isSubvolume(home)) await this.requireWhole(home)
    await this.rename(name, sealed)
    await setReadOnly(this.#place.host, this.home(sealed), true)
  }

  async unseal(sealed: Name, name: Name): Promise<void> {
    if (await isSubvolume(this.home(sealed))) await setReadOnly(this.#place.host, this.home(sealed), false)
    await this.rename(sealed, name)
  }

  /** @throws Fault `conflict` when there are subvolumes in it, which a snapshot would not hold */
  async requireWhole(path: string): Promise<void> {
    if (!this.#kind.isOpenToGuests) return
    const [inside] = await subvolumesIn(this.#place.host, path)
    if (!inside) return
    throw new Fault(
      'conflict',
      `'${path}' holds subvolumes of its own, which a snapshot of it would not: ${inside.path}`,
      {
        remedy: `See \`btrfs subvolume list -o ${path}\`; make plain folders of them, or remove them.`,
      },
    )
  }

  /** Gone afterwards. */
  async discard(path: string): Promise<void> {
    await this.#kind.empty?.(path)
    await removeSubvolume(this.#place.host, path)
  }
}
