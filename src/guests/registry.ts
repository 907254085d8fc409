/**
 * What is configured: the half of the guest service that is about the store. It asks the drivers only which
 * guests run and with what.
 *
 * Guests of all kinds share ids, documents and run records. What differs is told by `rules` (what a configuration means)
 * and done by `drivers` (what happens on the machine).
 */
import { join } from 'node:path'
import { Fault, isFault } from '#base/fault.ts'
import type { Vmid, VolumeId } from '#base/ids.ts'
import { asVmid } from '#base/ids.ts'
import { loaderFor, once } from '#base/on-demand.ts'
import type { Random } from '#base/random.ts'
import type { Errors } from '#base/schema/check.ts'
import type { Store } from '#store/store.ts'
import type { ConfigChange, Filling, GuestConfig, Options, Snapshots } from './config.ts'
import { digestOf, requireDigest, touchesStorage } from './config.ts'
import type { GuestDocument, ListedGuest } from './documents.ts'
import { GuestDocuments, lockOf } from './documents.ts'
import type { GuestDriver } from './driver.ts'
import { type GuestKind, nounOf } from './kind.ts'
import type * as lxcDriver from './lxc/driver.ts'
import type * as qemuDriver from './qemu/driver.ts'
import { rulesOf } from './rules.ts'
import { RunRecords } from './run-record.ts'

const load = loaderFor(import.meta.url)

export interface RegistryNeeds extends qemuDriver.DriverNeeds {
  readonly settings: qemuDriver.DriverNeeds['settings'] & { readonly node: string }
  readonly store: Store
  readonly random: Random
}

export class GuestRegistry {
  protected readonly documents: GuestDocuments
  protected readonly records: RunRecords
  readonly #qemu: () => qemuDriver.QemuDriver
  readonly #lxc: () => lxcDriver.LxcDriver
  readonly #random: Random

  constructor(needs: RegistryNeeds) {
    this.documents = new GuestDocuments(needs.store, needs.settings.node)
    this.records = new RunRecords(join(needs.settings.runDir, 'guests'), needs.store.mark.touch)
    this.#qemu = once(() => new (load<typeof qemuDriver>('./qemu/driver.ts').QemuDriver)(needs, this.records))
    this.#lxc = once(() => new (load<typeof lxcDriver>('./lxc/driver.ts').LxcDriver)(needs, this.records))
    this.#random = needs.random
  }

  protected get qemu(): qemuDriver.QemuDriver {
    return this.#qemu()
  }

  protected get lxc(): lxcDriver.LxcDriver {
    return this.#lxc()
  }

  protected driverOf(kind: GuestKind): GuestDriver {
    return kind === 'lxc' ? this.lxc : this.qemu
  }

  /** What kind of guest it is, by what runs or ran, else by what is configured; a virtual machine where there is nothing. */
  async kindOf(vmid: Vmid): Promise<GuestKind> {
    return (await this.records.kindOf(vmid)) ?? (await this.documents.find(vmid))?.kind ?? 'qemu'
  }

  protected async driverFor(vmid: Vmid): Promise<GuestDriver> {
    return this.driverOf(await this.kindOf(vmid))
  }

  /** Ids of all containers. */
  async containers(): Promise<ReadonlySet<Vmid>> {
    const guests = await this.documents.list()
    return new Set(guests.filter(({ document }) => document.kind === 'lxc').map(({ vmid }) => vmid))
  }

  /** All that are configured, by id. */
  configured(): Promise<readonly ListedGuest[]> {
    return this.documents.list()
  }

  async exists(vmid: Vmid): Promise<boolean> {
    return (await this.documents.find(vmid)) !== undefined
  }

  /**
   * @param kind whoever does not say it means a virtual machine: what its options mean is another matter for a container
   * @throws Fault `missing`
   */
  async config(vmid: Vmid, kind: GuestKind | 'any' = 'qemu'): Promise<GuestConfig> {
    return this.#configIn(vmid, await this.documents.get(vmid, kind === 'any' ? undefined : kind))
  }

  async #configIn(vmid: Vmid, document: GuestDocument): Promise<GuestConfig> {
    const { options, reservedBy, snapshots, filling } = document
    const record = await this.records.running(vmid)
    return {
      options,
      ...(snapshots ? { snapshots } : {}),
      digest: digestOf(options),
      ...(record ? { running: record.options } : {}),
      ...(reservedBy === undefined ? {} : { reservedBy }),
      ...(filling === undefined ? {} : { filling }),
    }
  }

  /**
   * Takes an id for a guest that is being made by the task `owner`.
   * @throws Fault `conflict` when a guest, or another task's reservation, has it
   */
  async reserve(vmid: Vmid, owner: string, kind: GuestKind = 'qemu'): Promise<void> {
    await this.documents.create(vmid, { kind, options: {}, reservedBy: owner })
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
      return isOwn ? { kind: document.kind, options: {}, reservedBy: owner } : document
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
      if (document.reservedBy !== undefined && document.reservedBy !== checks.owner)
        throw lockedFault(vmid, 'create', document.kind)
      const createdBy = document.reservedBy ?? document.createdBy
      const { kind, snapshots, filling } = document
      return {
        kind,
        options: change(document.options),
        ...(createdBy === undefined ? {} : { createdBy }),
        ...(snapshots ? { snapshots } : {}),
        ...(filling ? { filling } : {}),
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
    for (const vmid of await this.records.all()) {
      const record = await this.qemu.running(vmid)
      if (record) found.push({ vmid, options: record.options })
    }
    return found
  }

  /** Writes down what became of the running guest's hardware without a start; nothing when it is stopped. */
  async changeRunning(vmid: Vmid, change: (options: Options) => Options): Promise<void> {
    const record = await this.records.running(vmid)
    if (record) await this.records.write(vmid, { ...record, options: change(record.options) })
  }

  /**
   * Changes a configuration at once, when that neither makes nor destroys a volume nor changes a running guest.
   * @returns false, having changed nothing, when it does: then it is the work of the operation `qmconfig`
   * @throws Fault `invalid` naming each wrong option, `conflict`
   */
  async applyChange(
    vmid: Vmid,
    change: ConfigChange,
    checks: {
      readonly digest?: string | undefined
      readonly force?: boolean | undefined
      readonly kind?: GuestKind
    } = {},
  ): Promise<boolean> {
    const { kind = 'qemu' } = checks
    const now = await this.config(vmid, kind)
    // Which disk is which must stay as it is until all of them are whole.
    if (now.filling) throw lockedFault(vmid, 'create', kind)
    const rules = rulesOf(kind)
    const plan = rules.plan(vmid, now, change, checks.force)
    if (touchesStorage(plan) || (now.running && rules.isLive(now.running, plan.options))) return false
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
        return rules.completed(rules.plan(vmid, config, change, checks.force).options, this.#random)
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
    const { kind, options } = await this.documents.get(vmid)
    return this.driverOf(kind).changeLive(vmid, options, how)
  }

  /** @throws Fault `conflict` 'VM 100 already exists on node …' */
  async requireFree(vmid: Vmid): Promise<void> {
    await this.documents.requireFree(vmid)
  }

  /** Forgets a stopped guest, with the logs of its last run. Idempotent. */
  async removeConfig(vmid: Vmid): Promise<void> {
    await (await this.driverFor(vmid)).forget(vmid)
    try {
      await this.documents.update(vmid, () => undefined)
    } catch (fault) {
      if (!isFault(fault, 'missing')) throw fault
    }
  }

  /** Undoes `removeConfig`. Leaves a guest that is there alone. */
  async restoreConfig(
    vmid: Vmid,
    options: Options,
    {
      snapshots = {},
      kind = 'qemu',
      filling,
    }: { readonly snapshots?: Snapshots; readonly kind?: GuestKind; readonly filling?: Filling | undefined } = {},
  ): Promise<void> {
    if (await this.exists(vmid)) return
    await this.documents.create(vmid, { kind, options, snapshots, ...(filling ? { filling } : {}) })
  }

  /** Guests whose disks are not whole yet. */
  async fillings(): Promise<{ readonly vmid: Vmid; readonly filling: Filling }[]> {
    const guests = await this.documents.list()
    return guests.flatMap(({ vmid, document: { filling } }) => (filling ? [{ vmid, filling }] : []))
  }

  /** The guest that still lacks what is in this backup. */
  async filledFrom(volid: VolumeId): Promise<Vmid | undefined> {
    return (await this.fillings()).find(({ filling }) => filling.from === volid)?.vmid
  }

  /** Writes down what the disks of a guest still lack; nothing: they are whole. */
  async setFilling(vmid: Vmid, filling: Filling | undefined): Promise<void> {
    await this.documents.update(vmid, (document) => {
      const { filling: _before, ...rest } = document
      return { ...rest, ...(filling && filling.drives.length > 0 ? { filling } : {}) }
    })
  }

  /** @throws Fault `conflict` 'VM is locked (backup)' unless `lock` is the one it has */
  async requireUnlocked(vmid: Vmid, except?: string): Promise<void> {
    const document = await this.documents.get(vmid)
    const lock = lockOf(document)
    if (lock !== undefined && lock !== except) throw lockedFault(vmid, lock, document.kind)
  }

  /** As `requireUnlocked`, for what may be done to a guest whose disks are not whole yet: start it, stop it, destroy it. */
  async requireUsable(vmid: Vmid): Promise<void> {
    const { filling, reservedBy } = await this.documents.get(vmid)
    await this.requireUnlocked(vmid, filling && reservedBy === undefined ? 'create' : undefined)
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

export function lockedFault(vmid: Vmid, lock: string, kind: GuestKind): Fault {
  const noun = nounOf[kind]
  return new Fault('conflict', `${noun} is locked (${lock})`, {
    remedy: `Wait for the task that works on ${noun} ${vmid}.`,
  })
}
