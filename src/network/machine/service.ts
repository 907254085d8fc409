/**
 * The network of the machine itself: bridges, bonds, VLANs and addresses people declare for it.
 *
 * Two lists are in the store: the one in force, and the one staged, which is absent while nothing is staged. What the
 * machine has besides is read from the kernel and shown, and left alone. A plan leads from the first list to the second;
 * the operation `operations/node/apply-network.ts` carries it out, and takes it back unless it is confirmed.
 *
 * Only a node that owns its network changes it; others, a lab for one, look. Rejected: editing
 * `/etc/network/interfaces` (docs/decisions/host-network.md).
 *
 * Who may run beside whom: any number of processes stage and read; one task at a time, by the lock `network`, applies.
 */
import type { Clock } from '#base/clock.ts'
import { Fault, invalid } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { macAddress, type Random } from '#base/random.ts'
import { readIfPresent } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import type { NetworkPlace } from '#host/network/netns.ts'
import { type Document, Documents } from '#store/document.ts'
import type { Store } from '#store/store.ts'
import type { Settings } from '#settings.ts'
import { namesOf } from '../names.ts'
import { networkRecords, type NetworkRecords, type TapRecord } from '../records.ts'
import { makeSo } from './change.ts'
import { type Caller, Confirmations } from './confirmation.ts'
import { type Declared, declaredList, membersOf } from './declared.ts'
import { observe } from './observe.ts'
import { allErrors, mutualErrors, ownErrors } from './rules.ts'
import { canonical, differing, type NetworkState } from './state.ts'
import { interfacesText, unifiedDiff } from './text.ts'
import { wantedState } from './wanted.ts'
import { declaredFrom, declaredToWire, observedToWire, type WireInterface, type WireParams } from './wire.ts'

export interface HostNetworkNeeds {
  readonly settings: Settings
  readonly store: Store
  readonly host: Host
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** The network that stands for the machine's. Default: the one this process is in. */
  readonly place?: NetworkPlace
}

/** From one list of interfaces to another; plain JSON, so that it survives the process that made it. */
export type NetworkPlan = {
  readonly before: readonly Declared[]
  readonly after: readonly Declared[]
  /** Links that change, as they were and as they shall be. */
  readonly names: readonly string[]
  readonly was: NetworkState
  readonly shall: NetworkState
  readonly diff: string
  /** The run of the kernel it was made in: after another start nothing of it is there. */
  readonly boot: string
}

type List = { interfaces: Declared[] }
const inForce = 'current'
const staged = 'staged'

export class HostNetwork {
  readonly confirmations: Confirmations
  readonly #needs: HostNetworkNeeds
  readonly #place: NetworkPlace
  readonly #alias: string
  readonly #lists: Documents<List>
  readonly #taps: NetworkRecords['taps']

  constructor(needs: HostNetworkNeeds) {
    this.#needs = needs
    this.#place = needs.place ?? {}
    this.#alias = namesOf(needs.settings.instance).alias
    const { store } = needs
    this.#lists = new Documents(store, { noun: 'interfaces', prefix: 'network/machine/', schema: declaredList })
    this.#taps = networkRecords(store).taps
    this.confirmations = new Confirmations(needs)
  }

  /** Declared as it will be once it is applied, with what the machine has besides; and the difference to what is in force. */
  async list(): Promise<{ interfaces: WireInterface[]; changes: string }> {
    const [{ before, after }, now] = [await this.#read(), await this.#observe()]
    const declared = after.map((wish, index) => declaredToWire(wish, now, index + 1))
    const known = new Set(after.map(({ iface }) => iface))
    const others = Object.values(now).filter(({ name }) => !known.has(name))
    const leaving = new Set(before.filter(({ type }) => type !== 'eth').map(({ iface }) => iface))
    const observed = others
      .filter(({ name }) => !leaving.has(name))
      .flatMap((link, index) => observedToWire(link, now, after.length + index + 1) ?? [])
    return {
      interfaces: [...declared, ...observed].toSorted((a, b) => (a.iface < b.iface ? -1 : 1)),
      changes: diffOf(before, after),
    }
  }

  /** @throws Fault `invalid` naming `iface`: `interface does not exist` */
  async get(iface: string): Promise<WireInterface> {
    const found = (await this.list()).interfaces.find((one) => one.iface === iface)
    if (!found) throw noSuchInterface()
    return found
  }

  /** Stages a new interface. @throws Fault `invalid` naming the parameter */
  async create(iface: string, params: WireParams): Promise<void> {
    this.requireOwn()
    const wish = declaredFrom(iface, params)
    const now = await this.#observe()
    await this.#stage((all, before) => {
      if (all.some((one) => one.iface === iface)) throw invalid({ iface: 'interface already exists' })
      const isOurs = before.some((one) => one.iface === iface)
      const there = now[iface]
      if (there && !isOurs && wish.type !== 'eth' && there.kind !== wish.type) {
        throw invalid({
          iface: `interface already exists: this machine has ${there.kind ?? 'a network card'} '${iface}'`,
        })
      }
      return [...all, wish]
    }, wish.iface)
  }

  /** Stages a change. What is not given stays. A network card may be changed without having been created. */
  async update(iface: string, params: WireParams): Promise<void> {
    this.requireOwn()
    const shown = await this.get(iface)
    await this.#stage((all) => {
      const before = all.find((one) => one.iface === iface)
      if (!before && shown.type !== 'eth') {
        throw invalid({ iface: `'${iface}' was made by other software of this machine and is not declared here` })
      }
      const wish = declaredFrom(iface, params, before)
      return [...all.filter((one) => one.iface !== iface), wish]
    }, iface)
  }

  /** Stages that an interface goes. */
  async delete(iface: string): Promise<void> {
    this.requireOwn()
    const shown = (await this.list()).interfaces.find((one) => one.iface === iface)
    await this.#stage((all) => {
      if (!shown) throw noSuchInterface()
      if (!all.some((one) => one.iface === iface)) {
        throw invalid({ iface: `nothing is declared for '${iface}' that could be deleted` })
      }
      return all.filter((one) => one.iface !== iface)
    })
  }

  /** Forgets what is staged. Idempotent. */
  async revert(): Promise<void> {
    this.requireOwn()
    await this.#lists.alter(staged, () => undefined)
  }

  /**
   * Looks what would have to change. @throws Fault `invalid` with every mistake; `conflict` when guests would lose
   * their bridge or the walls between their VLANs, or a name is taken
   */
  async plan(): Promise<NetworkPlan> {
    this.requireOwn()
    const [{ before, after }, now] = [await this.#read(), await this.#observe()]
    const mistakes = allErrors(after, this.#staying(now, before, after))
    if (mistakes.length > 0)
      throw new Fault('invalid', ['the staged network cannot be applied', ...mistakes].join('\n'))
    const shall = this.#wanted(now, before, after)
    await this.#refuseToCutGuests(now, shall)
    const names = differing(now, shall)
    const only = (state: NetworkState) =>
      Object.fromEntries(names.flatMap((name) => (state[name] ? [[name, state[name]]] : [])))
    return {
      before,
      after,
      names,
      was: only(now),
      shall: only(shall),
      diff: diffOf(before, after),
      boot: await bootId(),
    }
  }

  async carryOut({ shall, names }: NetworkPlan, log: (line: string) => void, signal?: AbortSignal): Promise<void> {
    await makeSo(shall, { ...this.#hands(names), log, ...(signal ? { signal } : {}) })
  }

  /** Puts the links of the plan back as they were. Idempotent. */
  async takeBack({ was, names, boot }: NetworkPlan, log: (line: string) => void): Promise<void> {
    // After a new start of the machine there is nothing to put back, and `bringUp` makes what is in force.
    if (boot === (await bootId())) await makeSo(was, { ...this.#hands(names), log })
  }

  /** From now on this is in force. What was staged meanwhile stays staged. */
  async keep({ before, after }: NetworkPlan): Promise<void> {
    await this.#move(before, after)
  }

  async unkeep({ before, after }: NetworkPlan): Promise<void> {
    const { before: current, isStaged } = await this.#read()
    if (!isSame(current, after)) return
    await this.#putInForce(before)
    if (!isStaged && !isSame(before, after)) await this.#lists.put(staged, { interfaces: [...after] })
  }

  /** Makes what is in force, when the daemon starts. What fails is logged: a node without its bridges still serves. */
  async bringUp(): Promise<void> {
    const { log } = this.#needs
    const { before } = await this.#read()
    if (!this.#needs.settings.ownsNetwork || before.length === 0) return
    // A task is at it.
    if (await this.confirmations.current()) return
    try {
      const now = await this.#observe()
      const shall = this.#wanted(now, before, before)
      await makeSo(shall, this.#hands(differing(now, shall)))
      const absent = before.flatMap(membersOf).filter((name) => !shall[name])
      if (absent.length > 0) log.warn('network cards that are declared are not in this machine', { absent })
    } catch (error) {
      log.error('the network that was declared cannot be made', { error })
    }
  }

  /** A permitted request has arrived; after a change of the network it may be the proof that the node is reachable. */
  heard(caller: Caller): void {
    this.confirmations.heard(caller).catch((error: unknown) => {
      this.#needs.log.error('a call could not be counted as confirmation', { error })
    })
  }

  /** @throws Fault `conflict` for a node that shares its network with others */
  requireOwn(): void {
    if (this.#needs.settings.ownsNetwork) return
    throw new Fault('conflict', 'the network belongs to the machine, which this node shares with others', {
      remedy: 'Change it on the machine itself.',
    })
  }

  #hands(names: readonly string[]) {
    return { host: this.#needs.host, place: this.#place, names }
  }

  #observe(): Promise<NetworkState> {
    return observe(this.#needs.host, this.#place)
  }

  #wanted(now: NetworkState, before: readonly Declared[], after: readonly Declared[]): NetworkState {
    const newMac = () => macAddress(this.#needs.random).toLowerCase()
    return wantedState({ now, before, after, alias: this.#alias, newMac })
  }

  async #read(): Promise<{ before: Declared[]; after: Declared[]; isStaged: boolean }> {
    const [current, next] = [await this.#lists.find(inForce), await this.#lists.find(staged)]
    const before = interfacesOf(current)
    return { before, after: next ? interfacesOf(next) : before, isStaged: next !== undefined }
  }

  /** @param checked the interface whose mistakes are looked for */
  async #stage(
    change: (all: readonly Declared[], before: readonly Declared[]) => Declared[],
    checked?: string,
  ): Promise<void> {
    const [{ before }, now] = [await this.#read(), await this.#observe()]
    await this.#lists.alter(staged, (value) => {
      const after = change(value?.interfaces ?? before, before)
      const wish = after.find(({ iface }) => iface === checked)
      if (wish) {
        const errors = { ...mutualErrors(wish, after, this.#staying(now, before, after)), ...ownErrors(wish) }
        if (Object.keys(errors).length > 0) throw invalid(errors)
      }
      return isSame(before, after) ? undefined : { interfaces: after }
    })
  }

  /** Without the links that go because they are no longer declared. */
  #staying(now: NetworkState, before: readonly Declared[], after: readonly Declared[]): NetworkState {
    const goes = ({ iface, type }: Declared) => type !== 'eth' && !after.some((one) => one.iface === iface)
    const gone = new Set(before.filter(goes).map(({ iface }) => iface))
    return Object.fromEntries(Object.entries(now).filter(([name]) => !gone.has(name)))
  }

  async #move(before: readonly Declared[], after: readonly Declared[]): Promise<void> {
    await this.#putInForce(after)
    await this.#lists.alter(staged, (value) => (value && isSame(value.interfaces, after) ? undefined : value))
    this.#needs.log.info('the network is as it was declared', { from: before.length, to: after.length })
  }

  async #putInForce(all: readonly Declared[]): Promise<void> {
    await this.#lists.alter(inForce, () => (all.length === 0 ? undefined : { interfaces: [...all] }))
  }

  async #refuseToCutGuests(now: NetworkState, shall: NetworkState): Promise<void> {
    for (const { name: tap, value } of await this.#taps.list()) {
      const bridge = value.netns === undefined && now[tap] ? now[tap].master : undefined
      if (bridge === undefined) continue
      const next = shall[bridge]
      if (!next) throw wouldCut(`the bridge '${bridge}' cannot be removed`, value)
      const isTagged = value.tag !== undefined || value.trunks !== undefined
      if (isTagged && next.bridge?.isVlanAware !== true)
        throw wouldCut(`'${bridge}' must go on telling VLANs apart`, value)
    }
  }
}

function wouldCut(what: string, { vmid, nic, tag }: TapRecord): Fault {
  const vlan = tag === undefined ? '' : ` in VLAN ${tag}`
  return new Fault('conflict', `${what}: ${nic} of guest ${vmid} is plugged in there${vlan}`, {
    remedy: `Shut down guest ${vmid}, or move its ${nic} to another bridge.`,
  })
}

function noSuchInterface(): Fault {
  return invalid({ iface: 'interface does not exist' })
}

function interfacesOf(found: Document<List> | undefined): Declared[] {
  return found?.value.interfaces ?? []
}

function diffOf(before: readonly Declared[], after: readonly Declared[]): string {
  return unifiedDiff(interfacesText(before), interfacesText(after))
}

function isSame(one: readonly Declared[], other: readonly Declared[]): boolean {
  const textOf = (all: readonly Declared[]) => all.map(canonical).toSorted().join('\n')
  return textOf(one) === textOf(other)
}

async function bootId(): Promise<string> {
  return ((await readIfPresent('/proc/sys/kernel/random/boot_id')) ?? '').trim()
}
