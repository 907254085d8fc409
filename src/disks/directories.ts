/**
 * Disks that are folders: a file system each, mounted below one place under the name it was given.
 *
 * Which ones there are is in the store, by the identifier of the file system, because the names of devices change from
 * boot to boot. The daemon mounts them when it starts; a machine need have neither systemd nor an entry in fstab. A
 * disk that is away keeps nobody from starting, and its storage knows by `is_mountpoint` that it is away.
 */
import { rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { object, type Static, string } from '#base/schema/schema.ts'
import { blockDevice, blockDevices } from '#host/disks/block-devices.ts'
import { codeOf, makeDirectory } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { mountPoints, unmount } from '#host/disks/mount.ts'
import type { Settings } from '#settings.ts'
import { Documents } from '#store/document.ts'
import type { Store } from '#store/store.ts'

const shape = object({
  /** Of the file system. */
  uuid: string(),
  /** ext4 or xfs. */
  type: string(),
  /** As it was called when it was made. */
  device: string(),
})
export type DiskDirectory = Static<typeof shape>

export interface DirectoriesNeeds {
  readonly settings: Pick<Settings, 'stateDir' | 'machineRoot'>
  readonly host: Host
  readonly store: Store
}

export class Directories {
  readonly #needs: DirectoriesNeeds
  readonly #documents: Documents<DiskDirectory>

  constructor(needs: DirectoriesNeeds) {
    this.#needs = needs
    this.#documents = new Documents(needs.store, { noun: 'directory', prefix: 'disks/directories/', schema: shape })
  }

  /** Where a disk of that name is mounted: where clients expect it, or among the node's own files on a shared machine. */
  pathOf(name: string): string {
    const { machineRoot, stateDir } = this.#needs.settings
    return machineRoot === '/' ? join('/mnt/pve', name) : join(stateDir, 'mnt', name)
  }

  async list(): Promise<(DiskDirectory & { name: string; path: string })[]> {
    const all = await this.#documents.list()
    return all.map(({ name, value }) => ({ ...value, name, path: this.pathOf(name) }))
  }

  /** @throws Fault `missing` */
  async get(name: string): Promise<DiskDirectory> {
    return (await this.#documents.get(name)).value
  }

  async find(name: string): Promise<DiskDirectory | undefined> {
    return (await this.#documents.find(name))?.value
  }

  /** @throws Fault `conflict` when there is one of that name */
  async record(name: string, directory: DiskDirectory): Promise<void> {
    await this.#documents.create(name, directory)
  }

  async put(name: string, directory: DiskDirectory): Promise<void> {
    await this.#documents.put(name, directory)
  }

  async forget(name: string): Promise<void> {
    await this.#documents.alter(name, () => undefined)
  }

  /** Harmless when it is mounted. @throws Fault `missing` when the disk is away */
  async mount(name: string, directory: DiskDirectory): Promise<void> {
    if (await this.isMounted(name)) return
    const [path, device] = [this.pathOf(name), await this.deviceOf(directory)]
    await makeDirectory(path, 0o755)
    await this.#needs.host.run(['mount', '-t', directory.type, device, path])
  }

  /** What the disk is called now. @throws Fault `missing` when it is away */
  async deviceOf({ uuid, device }: DiskDirectory): Promise<string> {
    const { host } = this.#needs
    const before = await blockDevice(host, device).catch((error: unknown) => {
      if (isFault(error, 'missing')) return undefined
      throw error
    })
    if (before?.uuid === uuid) return device
    const all = (await blockDevices(host)).flatMap((disk) => [disk, ...disk.children])
    const found = all.find((one) => one.uuid === uuid)
    if (found) return found.path
    throw new Fault('missing', `the disk with the file system ${uuid} (it was '${device}') is not there`)
  }

  async isMounted(name: string): Promise<boolean> {
    return (await mountPoints()).includes(this.pathOf(name))
  }

  /** Harmless when it is not mounted. The folder goes too, unless there is something in it. @throws Fault `timeout` while in use */
  async unmount(name: string): Promise<void> {
    const path = this.pathOf(name)
    await unmount(this.#needs.host, path)
    await rmdir(path).catch((error: unknown) => {
      if (!['ENOENT', 'ENOTEMPTY', 'EEXIST'].includes(codeOf(error) ?? '')) throw error
    })
  }

  /** At the start of the daemon. */
  async mountAll(log: Log): Promise<void> {
    for (const { name, ...directory } of await this.list()) {
      await this.mount(name, directory).catch((error: unknown) => {
        log.error(`the disk of '${name}' cannot be mounted: ${messageOf(error)}`, { error })
      })
    }
  }
}
