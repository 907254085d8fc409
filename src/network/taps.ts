/**
 * Taps: the cable between a guest's card and a bridge.
 *
 * A tap lives as long as a descriptor of it is open (see `host/native.ts`): first this process's, then
 * QEMU's. So what can be left over is a record, never a tap, and a record of a tap that is gone is simply
 * used again. Names are numbered, since a vmid does not fit beside the instance into 15 characters.
 */
import { closeSync } from 'node:fs'
import { Fault, isFault, missing } from '#base/fault.ts'
import type { Host } from '#host/host.ts'
import { changeLink, deleteLink, findLink, links } from '#host/ip.ts'
import { openTap } from '#host/native.ts'
import { netnsExists } from '#host/netns.ts'
import type { Names } from './names.ts'
import type { NetworkRecords, TapRecord } from './records.ts'

export interface Taps {
  readonly host: Host
  readonly names: Names
  readonly records: NetworkRecords
}

export interface Plugged {
  readonly tap: string
  /** Open in this process: hand it to QEMU, then close it. */
  readonly fd: number
}

/** How often another process may snatch the number one has chosen. */
const ATTEMPTS = 100

/**
 * Opens a tap for a card and joins it to its bridge.
 * @throws Fault `missing` when there is no such bridge, `conflict` when the card is plugged in already.
 */
export async function plugTap(taps: Taps, card: TapRecord): Promise<Plugged> {
  const { host, names, records } = taps
  const { bridge, netns } = card
  if ((await findLink(host, bridge, { netns }))?.kind !== 'bridge') {
    throw new Fault('missing', `bridge '${bridge}' does not exist`, {
      remedy: `Create it, or change the bridge of ${card.nic} of guest ${card.vmid}.`,
    })
  }
  const tap = await reserve(taps, card)
  const fd = openTap(tap)
  try {
    if (netns !== undefined) await changeLink(host, tap, { toNetns: netns })
    const change = { alias: names.alias, master: bridge, noAddressByItself: true, isUp: true }
    await changeLink(host, tap, change, { netns })
    return { tap, fd }
  } catch (fault) {
    closeSync(fd)
    await records.taps.alter(tap, () => undefined)
    throw fault
  }
}

/**
 * Joins the tap of a card that is plugged in to another bridge; the guest notices nothing.
 * @throws Fault `missing` when there is no such bridge, or no such card
 */
export async function moveTap({ host, names, records }: Taps, card: TapRecord): Promise<void> {
  const { vmid, nic, bridge, netns } = card
  if ((await findLink(host, bridge, { netns }))?.kind !== 'bridge') throw missing('bridge', bridge)
  const own = (await records.taps.list()).find(({ value }) => value.vmid === vmid && value.nic === nic)
  if (!own) throw missing('card', `${nic} of guest ${vmid}`)
  await changeLink(host, own.name, { alias: names.alias, master: bridge }, { netns })
  await records.taps.put(own.name, card)
}

/** Removes the taps of a guest, or of one of its cards, also from under a QEMU that still holds them. Idempotent. */
export async function unplugTaps({ host, records }: Taps, vmid: number, nic: string | undefined): Promise<void> {
  for (const { name, value } of await records.taps.list()) {
    if (value.vmid !== vmid || (nic !== undefined && value.nic !== nic)) continue
    const isPlaceThere = value.netns === undefined || (await netnsExists(value.netns))
    if (isPlaceThere) await deleteLink(host, name, { netns: value.netns })
    await records.taps.alter(name, () => undefined)
  }
}

/** The name of the tap for this card, written down. */
async function reserve(taps: Taps, card: TapRecord): Promise<string> {
  const { host, names, records } = taps
  const recorded = await records.taps.list()
  const mine = recorded.find(({ value }) => value.vmid === card.vmid && value.nic === card.nic)
  if (mine) return reuse(taps, mine.name, mine.value, card)
  const taken = new Set([...recorded.map(({ name }) => name), ...(await links(host)).map(({ name }) => name)])
  for (let [number, attempts] = [0, 0]; attempts < ATTEMPTS; number += 1) {
    const name = names.tap(number)
    if (taken.has(name)) continue
    attempts += 1
    try {
      await records.taps.create(name, card)
      return name
    } catch (error) {
      if (!isFault(error, 'conflict')) throw error
    }
  }
  throw new Fault('conflict', `no number for a tap could be had in ${ATTEMPTS} attempts`, { remedy: 'Try again.' })
}

async function reuse({ host, records }: Taps, tap: string, old: TapRecord, card: TapRecord): Promise<string> {
  const isPlaceThere = old.netns === undefined || (await netnsExists(old.netns))
  if (isPlaceThere && (await findLink(host, tap, { netns: old.netns }))) {
    throw new Fault('conflict', `${card.nic} of guest ${card.vmid} is plugged in already, by '${tap}'`)
  }
  await records.taps.put(tap, card)
  return tap
}
