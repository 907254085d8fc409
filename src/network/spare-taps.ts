/**
 * Second taps for the cards of a guest that another process is to take over: a tap serves one process.
 *
 * They are made beside the first, in the same place, and carry nothing; from one moment to the next they do and the
 * first do not; then they are kept instead of the first, or dropped. Every verb but the first may run twice.
 */
import { changeNetwork } from '#host/network/network-state.ts'
import type { TapRecord } from './records.ts'
import { type Plugged, plugTap, removeTaps, tapOf, type Taps } from './taps.ts'

interface KnownTap {
  readonly name: string
  readonly value: TapRecord
}

export class SpareTaps {
  readonly #taps: Taps

  constructor(taps: Taps) {
    this.#taps = taps
  }

  /** @throws Fault `missing` when there is no such card, `conflict` when it has one already */
  async plug(vmid: number, nic: string): Promise<Plugged> {
    const { value } = await tapOf(this.#taps, vmid, nic)
    return plugTap(this.#taps, { ...value, isSpare: true })
  }

  /** The guest's frames go through its spare taps from now on. */
  async use(vmid: number): Promise<void> {
    const { own, spare } = await this.#of(vmid)
    // First what goes down: the bridge forgets what it knew of it, and asks all its ports for the guest.
    if (spare.length > 0) await this.#set([...states(own, 'down'), ...states(spare, 'up')])
  }

  /** The spare taps of a guest are its taps, and those they stand beside are gone. */
  async keep(vmid: number): Promise<void> {
    const { own, spare } = await this.#of(vmid)
    const replaced = new Set(own.map(({ name }) => name))
    await removeTaps(this.#taps, (name) => replaced.has(name))
    for (const { name, value } of spare) {
      const { isSpare: _, ...kept } = value
      await this.#taps.records.taps.put(name, kept)
    }
  }

  /** The guest's frames go through the taps it had. */
  async drop(vmid: number): Promise<void> {
    const { own, spare } = await this.#of(vmid)
    if (spare.length === 0) return
    await this.#set(states(own, 'up'))
    const dropped = new Set(spare.map(({ name }) => name))
    await removeTaps(this.#taps, (name) => dropped.has(name))
  }

  /** Its spare taps, and those they stand beside. */
  async #of(vmid: number): Promise<{ own: KnownTap[]; spare: KnownTap[] }> {
    const all = (await this.#taps.records.taps.list()).filter(({ value }) => value.vmid === vmid)
    const spare = all.filter(({ value }) => value.isSpare === true)
    const nics = new Set(spare.map(({ value }) => value.nic))
    return { own: all.filter(({ value }) => value.isSpare !== true && nics.has(value.nic)), spare }
  }

  async #set(commands: string[][]): Promise<void> {
    if (commands.length > 0) await changeNetwork(this.#taps.host, 'ip', commands)
  }
}

function states(taps: readonly KnownTap[], state: 'up' | 'down'): string[][] {
  return taps.map(({ name }) => ['link', 'set', 'dev', name, state])
}
