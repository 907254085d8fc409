/**
 * Letting guests out: the node's nft table, and the kernel's switch for forwarding.
 *
 * The switch is one per machine and several nodes may need it. Who turns it on writes down what it was,
 * and marks its own nft table with an empty chain; who comes later and finds such a mark knows that the
 * switch was off before all of them. Who leaves turns it off again only when nobody marked is left. The
 * marks live in the kernel beside the switch, so a reboot forgets both together.
 *
 * Turning the switch on would also make the machine a router between its other links. Those that exist
 * at that moment are kept apart by a rule.
 */
import { Fault } from '#base/fault.ts'
import type { Host } from '#host/host.ts'
import { links } from '#host/network/ip.ts'
import type { NetworkPlace } from '#host/network/netns.ts'
import { deleteTable, listChains, loadRuleset, type NatBridge, natRuleset } from '#host/network/nft.ts'
import { readSysctl, writeSysctl } from '#host/network/sysctl.ts'
import type { Names } from './names.ts'
import type { ForwardingRecord, NetworkRecords } from './records.ts'
import { formatSubnet, parseSubnet } from './subnet.ts'

const SWITCH = 'net/ipv4/ip_forward'
const MARK = 'forwarding_was_off'
const ATTEMPTS = 20
const KEY = 'ip-forward'

export interface Forwarding {
  readonly host: Host
  readonly names: Names
  readonly records: NetworkRecords
  /** Default: the machine itself. */
  readonly place?: NetworkPlace
}

/** Makes table and switch what the recorded bridges need. Idempotent; safe beside another process that does the same. */
export async function applyForwarding(forwarding: Forwarding): Promise<void> {
  const { host, names, records, place } = forwarding
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const bridges = await natBridges(records)
    if (bridges.length === 0) await forgetForwarding(forwarding)
    else {
      const { before, keepApart } = await remember(forwarding)
      const marks = before === '0' ? [MARK] : []
      await loadRuleset(host, natRuleset({ table: names.table, bridges, keepApart, marks }), place)
      await writeSysctl(host, SWITCH, '1', place)
    }
    // Somebody may have added a bridge in between and loaded first: what was loaded last must be the newest.
    if (JSON.stringify(await natBridges(records)) === JSON.stringify(bridges)) return
  }
  throw new Fault('conflict', 'the bridges of this node are being changed by others all the time', {
    remedy: 'Try again.',
  })
}

async function natBridges(records: NetworkRecords): Promise<NatBridge[]> {
  const all = await records.bridges.list()
  return all
    .filter(({ value }) => value.nat)
    .map(({ name, value }) => ({ name, network: formatSubnet(parseSubnet(value.address)) }))
}

/** Written down before the switch is touched, and only once. */
async function remember(forwarding: Forwarding): Promise<ForwardingRecord> {
  const { host, records, place } = forwarding
  const known = await records.forwarding.find(KEY)
  if (known) return known.value
  // Marks first: who leaves turns the switch off before its mark vanishes.
  const isOthersDoing = await isMarkedByOthers(forwarding)
  const before = isOthersDoing ? '0' : await readSysctl(host, SWITCH, place)
  const record: ForwardingRecord = {
    before,
    keepApart: isOthersDoing || before !== '0' ? [] : await otherLinks(forwarding),
  }
  await records.forwarding.alter(KEY, (value) => value ?? record)
  return (await records.forwarding.get(KEY)).value
}

async function otherLinks({ host, place }: Forwarding): Promise<string[]> {
  const others = (await links(host, place)).filter(({ name }) => name !== 'lo' && !name.startsWith('hk'))
  return others.map(({ name }) => name).toSorted()
}

async function isMarkedByOthers({ host, names, place }: Forwarding): Promise<boolean> {
  const marks = (await listChains(host, place)).filter(({ name }) => name === MARK)
  return marks.some(({ table }) => table.startsWith('hk_') && table !== names.table)
}

/** Removes the table and, when it was off before and nobody else needs it, turns forwarding off. Idempotent. */
export async function forgetForwarding(forwarding: Forwarding): Promise<void> {
  const { host, names, records, place } = forwarding
  const known = await records.forwarding.find(KEY)
  const chains = await listChains(host, place)
  // The mark stands in for a record that was lost with the store.
  const wasOff = known?.value.before === '0' || chains.some(({ table, name }) => table === names.table && name === MARK)
  const mayTurnOff = wasOff && !(await isMarkedByOthers(forwarding))
  if (mayTurnOff) await writeSysctl(host, SWITCH, '0', place)
  await deleteTable(host, names.table, place)
  // Somebody may have marked and turned it on just before it was turned off.
  if (mayTurnOff && (await isMarkedByOthers(forwarding))) await writeSysctl(host, SWITCH, '1', place)
  await records.forwarding.alter(KEY, () => undefined)
}
