/**
 * Taps: the cable between a guest's card and a bridge. A container has a pair of links for it.
 *
 * A tap lives as long as a descriptor of it is open (see `host/native.ts`): first this process's, then
 * QEMU's. So what can be left over is a record, never a tap, and a record of a tap that is gone is simply
 * used again. Names are numbered, since a vmid does not fit beside the instance into 15 characters.
 */
import { closeSync } from 'node:fs'
import { Fault, isFault, missing } from '#base/fault.ts'
import { type PortVlans, setPortVlans } from '#host/network/bridge.ts'
import type { Host } from '#host/host.ts'
import { changeLink, deleteLink, findLink, links } from '#host/network/ip.ts'
import { openTap } from '#host/native.ts'
import { netnsExists } from '#host/network/netns.ts'
import { limitTraffic, unlimitTraffic } from '#host/network/traffic.ts'
import { changeNetwork, type LinkRow, linkRows } from '#host/network/network-state.ts'
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

const usualMtu = 1500

/** How often another process may snatch the number one has chosen. */
const ATTEMPTS = 100

/**
 * Opens a tap for a card and joins it to its bridge.
 * @throws Fault `missing` when there is no such bridge, `conflict` when the card is plugged in already or in a VLAN its
 *   bridge knows nothing of.
 */
export async function plugTap(taps: Taps, card: TapRecord): Promise<Plugged> {
  const { host, names, records } = taps
  const { bridge, netns } = card
  const rows = await linkRows(host, { netns })
  const vlans = vlansFor(rows, card)
  const tap = await reserve(taps, card, netns === undefined ? rows : undefined)
  const fd = openTap(tap)
  try {
    if (netns !== undefined) await changeLink(host, tap, { toNetns: netns })
    const change = { alias: names.alias, master: bridge, noAddressByItself: true, isUp: card.isSpare !== true }
    await changeLink(host, tap, change, { netns })
    if (vlans) await setPortVlans(host, tap, vlans)
    await hold(taps, tap, card)
    return { tap, fd }
  } catch (fault) {
    closeSync(fd)
    await deleteLink(host, names.shaperOf(tap), { netns })
    await records.taps.alter(tap, () => undefined)
    throw fault
  }
}

/** A cable of two ends: the node's, which has a tap's name, and the one a container takes for its card. */
export interface Cable {
  readonly tap: string
  readonly cable: string
}

/** As `plugTap`, for a container. The pair ends with the container that took one end of it, or with `unplugTaps`. */
export async function plugCable(taps: Taps, card: TapRecord): Promise<Cable> {
  const { host, names, records } = taps
  const { bridge, netns } = card
  const rows = await linkRows(host, { netns })
  const vlans = vlansFor(rows, card)
  const tap = await reserve(taps, card, netns === undefined ? rows : undefined)
  const cable = names.cableOf(tap)
  try {
    const { mtu = usualMtu } = card
    // A shorter one is for the container alone: a bridge takes over the shortest of its cables.
    const length = mtu > usualMtu ? ['mtu', String(mtu)] : []
    const up = card.isDown === true ? [] : [['link', 'set', 'dev', tap, 'up']]
    const isPlain = vlans === undefined && (card.rate ?? 0) === 0
    const commands = [
      ['link', 'add', 'name', tap, 'type', 'veth', 'peer', 'name', cable],
      ['link', 'set', 'dev', tap, 'alias', names.alias, 'master', bridge, 'addrgenmode', 'none', ...length],
    ]
    await changeNetwork(host, 'ip', isPlain ? [...commands, ...up] : commands, { netns })
    if (!isPlain) {
      if (vlans) await setPortVlans(host, tap, vlans)
      await hold(taps, tap, card)
      if (up.length > 0) await changeNetwork(host, 'ip', up, { netns })
    }
    return { tap, cable }
  } catch (fault) {
    for (const link of [tap, names.shaperOf(tap)]) await deleteLink(host, link, { netns })
    await records.taps.alter(tap, () => undefined)
    throw fault
  }
}

/** Holds the card to its rate, if it has one. */
async function hold({ host, names }: Taps, tap: string, { rate = 0, netns }: TapRecord): Promise<void> {
  const shaped = { link: tap, shaper: names.shaperOf(tap), alias: names.alias }
  if (rate > 0) await limitTraffic(host, shaped, rate, { netns })
}

/**
 * What the card's port carries, or nothing where its bridge does not tell VLANs apart.
 * @throws Fault `missing` naming the bridges there are, `conflict` for a card in a VLAN on such a bridge
 */
function vlansFor(
  rows: readonly LinkRow[],
  { vmid, nic, bridge, netns, tag, trunks }: TapRecord,
): PortVlans | undefined {
  const bridges = rows.filter(({ kind }) => kind === 'bridge')
  const found = bridges.find(({ name }) => name === bridge)
  if (!found) {
    const names = bridges.map(({ name }) => name).toSorted()
    throw new Fault('missing', `bridge '${bridge}' does not exist`, {
      remedy:
        names.length === 0
          ? `Create it, or change the bridge of ${nic} of guest ${vmid}; there are none here.`
          : `Create it, or change the bridge of ${nic} of guest ${vmid}; there are ${names.join(', ')}.`,
    })
  }
  // In an isolated network everybody is alone with everybody else of it.
  if (netns !== undefined) return undefined
  if (found.data.vlan_filtering !== 1) {
    if (tag === undefined && trunks === undefined) return undefined
    throw new Fault('conflict', `bridge '${bridge}' does not tell VLANs apart, as ${nic} of guest ${vmid} asks`, {
      remedy: `Make it so (hako network set ${bridge} --type bridge --bridge_vlan_aware 1, then apply), or leave tag and trunks out.`,
    })
  }
  // A card without a tag may use them all: the guest itself tells them apart.
  const carried = trunks?.split(';') ?? (tag === undefined ? ['2-4094'] : [])
  return { own: tag ?? 1, carried: carried.filter((range) => range !== String(tag ?? 1)) }
}

/**
 * Joins the tap of a card that is plugged in to another bridge, or to other VLANs; the guest notices nothing.
 * @throws Fault `missing` when there is no such bridge, or no such card
 */
export async function moveTap(taps: Taps, card: TapRecord): Promise<void> {
  const { host, names, records } = taps
  const { vmid, nic, bridge, netns } = card
  const vlans = vlansFor(await linkRows(host, { netns }), card)
  const own = await tapOf(taps, vmid, nic)
  await changeLink(host, own.name, { alias: names.alias, master: bridge }, { netns })
  if (vlans) await setPortVlans(host, own.name, vlans)
  // Written down before it is made, so that whoever cleans up finds it.
  if ((card.rate ?? 0) > 0) await records.taps.put(own.name, card)
  if ((card.rate ?? 0) > 0) await hold(taps, own.name, card)
  else if ((own.value.rate ?? 0) > 0) {
    await unlimitTraffic(host, { link: own.name, shaper: names.shaperOf(own.name) }, { netns })
  }
  if (card.mtu !== undefined) await changeLink(host, own.name, { mtu: Math.max(usualMtu, card.mtu) }, { netns })
  if (card.isDown !== undefined) await changeLink(host, own.name, { isUp: !card.isDown }, { netns })
  await records.taps.put(own.name, card)
}

/** The tap of a card that is plugged in. @throws Fault `missing` when there is no such card */
export async function tapOf({ records }: Taps, vmid: number, nic: string): Promise<{ name: string; value: TapRecord }> {
  const isIts = ({ value }: { readonly value: TapRecord }) => value.vmid === vmid && value.nic === nic
  const own = (await records.taps.list()).find((tap) => isIts(tap) && tap.value.isSpare !== true)
  if (!own) throw missing('card', `${nic} of guest ${vmid}`)
  return own
}

/** Removes the taps of a guest, or of one of its cards, also from under a QEMU that still holds them. Idempotent. */
export async function unplugTaps(taps: Taps, vmid: number, nic: string | undefined): Promise<void> {
  await removeTaps(taps, (_, value) => value.vmid === vmid && (nic === undefined || value.nic === nic))
}

/** Those whose record says so. Idempotent. */
export async function removeTaps(
  { host, names, records }: Taps,
  isMeant: (name: string, value: TapRecord) => boolean,
): Promise<void> {
  for (const { name, value } of await records.taps.list()) {
    if (!isMeant(name, value)) continue
    const isPlaceThere = value.netns === undefined || (await netnsExists(value.netns))
    if (isPlaceThere) await deleteLink(host, name, { netns: value.netns })
    if (isPlaceThere && (value.rate ?? 0) > 0) await deleteLink(host, names.shaperOf(name), { netns: value.netns })
    await records.taps.alter(name, () => undefined)
  }
}

/** The name of the tap for this card, written down. @param there links of the machine, where they are known */
async function reserve(taps: Taps, card: TapRecord, there?: readonly { readonly name: string }[]): Promise<string> {
  const { host, names, records } = taps
  const recorded = await records.taps.list()
  const isMine = (value: TapRecord) => value.vmid === card.vmid && value.nic === card.nic
  const mine = recorded.find(({ value }) => isMine(value) && value.isSpare === card.isSpare)
  if (mine) return reuse(taps, mine.name, mine.value, card)
  const taken = new Set([
    ...recorded.map(({ name }) => name),
    ...(there ?? (await links(host))).map(({ name }) => name),
  ])
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
