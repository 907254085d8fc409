/** From names to open storages and the volumes in them: configured, of this node, enabled, and there. */
import { Fault } from '#base/fault.ts'
import type { VolumeId } from '#base/ids.ts'
import type { Host } from '#host/host.ts'
import type { Settings } from '#settings.ts'
import type { StorageConfig } from './config.ts'
import { requireUnlinked } from './links.ts'
import { type HeldVolume, OpenStorage } from './opened.ts'
import type { StorageDriver } from './plugin.ts'
import { pluginOf } from './plugins/all.ts'
import type { StorageRegistry } from './registry.ts'
import { type ImageName, notOnItsOwn, parseVolumeId, type TreeName } from './volume.ts'

interface Needs {
  readonly settings: Pick<Settings, 'node'>
  readonly host: Host
}

export class StorageOpener {
  readonly #needs: Needs
  readonly #registry: StorageRegistry

  constructor(needs: Needs, registry: StorageRegistry) {
    this.#needs = needs
    this.#registry = registry
  }

  /** @throws Fault `missing`, `unavailable` */
  async open(name: string): Promise<OpenStorage> {
    const config = await this.#registry.get(name)
    if (config.isDisabled) throw new Fault('unavailable', `storage '${name}' is disabled`)
    if (!this.isEnabledHere(config)) {
      throw new Fault('unavailable', `storage '${name}' is not available on node '${this.#needs.settings.node}'`)
    }
    const driver = this.driverOf(config)
    await driver.requireActive()
    return new OpenStorage(config, driver, pluginOf(config.type).features)
  }

  /** A disk or a file. */
  async hold(volid: VolumeId): Promise<{ open: OpenStorage; volume: HeldVolume }> {
    const { storage, name } = parseVolumeId(volid)
    const open = await this.open(storage)
    if (name.kind === 'restore-point' || name.kind === 'member') throw notOnItsOwn(volid, name)
    return { open, volume: open.volume(name) }
  }

  /** One that nothing else is linked to. @throws Fault `conflict` */
  async holdUnlinked(volid: VolumeId): Promise<HeldVolume> {
    const { open, volume } = await this.hold(volid)
    const { name } = parseVolumeId(volid)
    if (name.kind === 'image' || name.kind === 'tree') await requireUnlinked(open, name)
    return volume
  }

  /** A disk of a guest. @throws Fault `invalid` */
  async image(volid: VolumeId): Promise<{ open: OpenStorage; name: ImageName }> {
    const { storage, name } = parseVolumeId(volid)
    if (name.kind !== 'image') throw new Fault('invalid', `volume '${volid}' is no disk of a guest`)
    return { open: await this.open(storage), name }
  }

  /** A disk of a guest, or a container's files. @throws Fault `invalid` */
  async disk(volid: VolumeId): Promise<{ open: OpenStorage; name: ImageName | TreeName }> {
    const { storage, name } = parseVolumeId(volid)
    if (name.kind === 'tree') return { open: await this.open(storage), name }
    return this.image(volid)
  }

  /** A container's files in a folder. @throws Fault `invalid` */
  async tree(volid: VolumeId): Promise<{ open: OpenStorage; name: TreeName }> {
    const { storage, name } = parseVolumeId(volid)
    if (name.kind !== 'tree') throw new Fault('invalid', `volume '${volid}' is no folder of a container's files`)
    return { open: await this.open(storage), name }
  }

  isEnabledHere({ isDisabled, nodes }: StorageConfig): boolean {
    return !isDisabled && (nodes === undefined || nodes.includes(this.#needs.settings.node))
  }

  driverOf(config: StorageConfig): StorageDriver {
    return pluginOf(config.type).open(config.options, { host: this.#needs.host, storage: config.name })
  }
}
