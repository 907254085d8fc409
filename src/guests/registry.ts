/**
 * What is configured: the half of the guest service that is about the store. It asks the driver only which
 * guests run and with what.
 */
import { Fault, isFault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { asVmid } from '#base/ids.ts'
import type { Random } from '#base/random.ts'
import type { Errors } from '#base/schema/check.ts'
import type { Store } from '#store/store.ts'
import type { ConfigChange, GuestConfig, Options, Snapshots } from './config.ts'
import { digestOf, requireDigest } from './config.ts'
import { GuestDocuments } from './documents.ts'
import { planChange, touchesStorage } from './qemu/change.ts'
import type { DriverNeeds } from './qemu/driver.ts'
import { QemuDriver } from './qemu/driver.ts'
import { planLive } from './qemu/live-plan.ts'
import { completedChange } from './qemu/new-guest.ts'

export interface RegistryNeeds extends DriverNeeds {
  readonly settings: DriverNeeds['settings'] & { readonly node: string }
  readonly store: Store
  readonly random: Random
}

export class GuestRegistry {
  protected readonly documents: GuestDocuments
  protected readonly driver: QemuDriver
  readonly #random: Random

  constructor(needs: RegistryNeeds) {
    this.documents = new GuestDocuments(needs.store, needs.settings.node)
    this.driver = new QemuDriver(needs)
    this.#random = needs.random
  }

  async exists(vmid: Vmid): Promise<boolean> {
    return (await this.documents.find(vmid)) !== undefined
  }

  /** @throws Fault `missing` */
  async config(vmid: Vmid): Promise<GuestConfig> {
    const { options, reservedBy, snapshots } = await this.documents.get(vmid)
    const record = await this.driver.running(vmid)
    return {
      options,
      ...(snapshots ? { snapshots } : {}),
      digest: digestOf(options),
      ...(record ? { running: record.options } : {}),
      ...(reservedBy === undefined ? {} : { reservedBy }),
    }
  }

  /**
   * Takes an id for a guest that is being made by the task `owner`.
   * @throws Fault `conflict` when a guest, or another task's reservation, has it
   */
  async reserve(vmid: Vmid, owner: string): Promise<void> {
    await this.documents.create(vmid, { options: {}, reservedBy: owner })
  }

  /** True while the guest is reserved by, or was created by, that task: an undo may remove it. */
  async isMadeBy(vmid: Vmid, owner: string): Promise<boolean> {
    const document = await this.documents.find(vmid)
    return document !== undefined && (document.reservedBy === owner || document.createdBy === owner)
  }

  /** Takes back the configuration its creator wrote; the reservation remains. For that task's undo. */
  async unwrite(vmid: Vmid, owner: string): Promise<void> {
    await this.documents.update(vmid, (document) => {
      const isOwn = document.reservedBy === owner || document.createdBy === owner
      return isOwn ? { options: {}, reservedBy: owner } : document
    })
  }

  /** Undoes `reserve`, and the configuration written into it. Leaves what another task made alone. */
  async release(vmid: Vmid, owner: string): Promise<void> {
    if (await this.isMadeBy(vmid, owner)) await this.removeConfig(vmid)
  }

  /**
   * Writes all options of a guest. For a reserved guest `owner` is the task that reserved it, and the
   * write makes the guest visible as complete.
   * @throws Fault `conflict` when `digest` is given and no longer that of the configuration
   */
  async writeConfig(
    vmid: Vmid,
    options: Options,
    checks: { readonly digest?: string | undefined; readonly owner?: string } = {},
  ): Promise<void> {
    await this.changeConfig(vmid, () => options, checks)
  }

  /** As `writeConfig`, from what is there now; `change` may be called several times. */
  async changeConfig(
    vmid: Vmid,
    change: (options: Options) => Options,
    checks: { readonly digest?: string | undefined; readonly owner?: string } = {},
  ): Promise<void> {
    await this.documents.update(vmid, (document) => {
      requireDigest({ options: document.options, digest: digestOf(document.options) }, checks.digest)
      if (document.reservedBy !== undefined && document.reservedBy !== checks.owner) throw lockedFault(vmid, 'create')
      const createdBy = document.reservedBy ?? document.createdBy
      const { snapshots } = document
      return {
        options: change(document.options),
        ...(createdBy === undefined ? {} : { createdBy }),
        ...(snapshots ? { snapshots } : {}),
      }
    })
  }

  /** Changes options and snapshots in one write; `change` may be called several times. */
  async changeSnapshots(
    vmid: Vmid,
    change: (now: { readonly options: Options; readonly snapshots: Snapshots }) => {
      readonly options: Options
      readonly snapshots: Snapshots
    },
  ): Promise<void> {
    await this.documents.update(vmid, (document) => ({
      ...document,
      ...change({ options: document.options, snapshots: document.snapshots ?? {} }),
    }))
  }

  /** Guests that run now, each with what it runs with. */
  async runningOptions(): Promise<{ readonly vmid: Vmid; readonly options: Options }[]> {
    const found: { vmid: Vmid; options: Options }[] = []
    for (const vmid of await this.driver.records.all()) {
      const record = await this.driver.running(vmid)
      if (record) found.push({ vmid, options: record.options })
    }
    return found
  }

  /** Writes down what became of the running guest's hardware without a start; nothing when it is stopped. */
  async changeRunning(vmid: Vmid, change: (options: Options) => Options): Promise<void> {
    const record = await this.driver.running(vmid)
    if (record) await this.driver.records.write(vmid, { ...record, options: change(record.options) })
  }

  /**
   * Changes a configuration at once, when that neither makes nor destroys a volume nor changes a running guest.
   * @returns false, having changed nothing, when it does: then it is the work of the operation `qmconfig`
   * @throws Fault `invalid` naming each wrong option, `conflict`
   */
  async applyChange(
    vmid: Vmid,
    change: ConfigChange,
    checks: { readonly digest?: string | undefined; readonly force?: boolean | undefined } = {},
  ): Promise<boolean> {
    const now = await this.config(vmid)
    const plan = planChange(vmid, now, change, checks.force)
    if (touchesStorage(plan) || (now.running && planLive(now.running, plan.options).length > 0)) return false
    const { running, snapshots } = now
    await this.changeConfig(
      vmid,
      (options) => {
        const config = {
          options,
          digest: digestOf(options),
          ...(running ? { running } : {}),
          ...(snapshots ? { snapshots } : {}),
        }
        return completedChange(planChange(vmid, config, change, checks.force).options, this.#random)
      },
      checks,
    )
    return true
  }

  /**
   * Makes of the running guest what is configured, as far as that goes without a restart; the rest stays pending. For
   * operations that hold its lock.
   * @returns the options it failed at, each with the reason
   */
  async changeLive(
    vmid: Vmid,
    how: { readonly signal?: AbortSignal; readonly log?: (line: string) => void } = {},
  ): Promise<Errors> {
    const { options } = await this.documents.get(vmid)
    return this.driver.changeLive(vmid, options, how)
  }

  /** @throws Fault `conflict` 'VM 100 already exists on node …' */
  async requireFree(vmid: Vmid): Promise<void> {
    await this.documents.requireFree(vmid)
  }

  /** Forgets a stopped guest, with the logs of its last run. Idempotent. */
  async removeConfig(vmid: Vmid): Promise<void> {
    await this.driver.forget(vmid)
    try {
      await this.documents.update(vmid, () => undefined)
    } catch (fault) {
      if (!isFault(fault, 'missing')) throw fault
    }
  }

  /** Undoes `removeConfig`. Leaves a guest that is there alone. */
  async restoreConfig(vmid: Vmid, options: Options, snapshots: Snapshots = {}): Promise<void> {
    if (!(await this.exists(vmid))) await this.documents.create(vmid, { options, snapshots })
  }

  /** @throws Fault `conflict` 'VM is locked (backup)' unless `lock` is the one it has */
  async requireUnlocked(vmid: Vmid, except?: string): Promise<void> {
    const { options, reservedBy } = await this.documents.get(vmid)
    const lock = reservedBy === undefined ? options.lock : 'create'
    if (lock !== undefined && lock !== except) throw lockedFault(vmid, lock)
  }

  /** The lowest free id. @throws Fault `exhausted` */
  async nextId(lower = 100, upper = 999_999): Promise<Vmid> {
    const taken = await this.documents.takenIds()
    for (let id = lower; id <= upper; id += 1) if (!taken.has(id)) return asVmid(id)
    throw new Fault('exhausted', `unable to get any free VMID in range [${lower}, ${upper}]`)
  }

  /** True when no guest of any kind has the id. */
  async isFree(vmid: Vmid): Promise<boolean> {
    return !(await this.documents.takenIds()).has(vmid)
  }
}

export function lockedFault(vmid: Vmid, lock: string): Fault {
  return new Fault('conflict', `VM is locked (${lock})`, { remedy: `Wait for the task that works on VM ${vmid}.` })
}
