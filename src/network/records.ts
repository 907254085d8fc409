/**
 * What the network service wrote down about what it made, so that any process can find and undo it.
 * A record is written before the thing is made and deleted after the thing is gone.
 */
import { array, boolean, integer, number, object, optional, type Static, string } from '#base/schema/schema.ts'
import { Documents } from '#store/document.ts'
import type { Store } from '#store/store.ts'

const bridgeRecord = object({
  /** Its own address and prefix, `10.181.3.1/24`. */
  address: string({ maxLength: 18 }),
  mac: string({ maxLength: 17 }),
  nat: boolean(),
  /** First and last address given out; absent without DHCP. */
  range: optional(array(string({ maxLength: 15 }))),
})
export type BridgeRecord = Static<typeof bridgeRecord>

const isolatedRecord = object({
  netns: string({ maxLength: 64 }),
  bridge: string({ maxLength: 15 }),
  address: string({ maxLength: 18 }),
  mac: string({ maxLength: 17 }),
})
export type IsolatedRecord = Static<typeof isolatedRecord>

const tapRecord = object({
  vmid: integer({ minimum: 0 }),
  nic: string({ maxLength: 16 }),
  mac: string({ maxLength: 17 }),
  bridge: string({ maxLength: 15 }),
  netns: optional(string({ maxLength: 64 })),
  /** VLAN of the card, and those that pass it with their tags (`10;20-30`). */
  tag: optional(integer({ minimum: 1, maximum: 4094 })),
  trunks: optional(string({ maxLength: 400 })),
  /** Bytes a second at most, each way. */
  rate: optional(number({ minimum: 0 })),
  /** The cable is there, and carries nothing. */
  isDown: optional(boolean()),
  mtu: optional(integer({ minimum: 64, maximum: 65_535 })),
  /** A second cable of a card, for a process that is to take the guest over. */
  isSpare: optional(boolean()),
})
export type TapRecord = Static<typeof tapRecord>

const forwardingRecord = object({
  /** What `net/ipv4/ip_forward` was before the first bridge with NAT. */
  before: string({ maxLength: 8 }),
  keepApart: array(string({ maxLength: 15 })),
})
export type ForwardingRecord = Static<typeof forwardingRecord>

export interface NetworkRecords {
  readonly bridges: Documents<BridgeRecord>
  readonly isolated: Documents<IsolatedRecord>
  readonly taps: Documents<TapRecord>
  readonly forwarding: Documents<ForwardingRecord>
}

export function networkRecords(store: Store): NetworkRecords {
  return {
    bridges: new Documents(store, { noun: 'bridge', prefix: 'network/bridges/', schema: bridgeRecord }),
    isolated: new Documents(store, { noun: 'isolated network', prefix: 'network/isolated/', schema: isolatedRecord }),
    taps: new Documents(store, { noun: 'tap', prefix: 'network/taps/', schema: tapRecord }),
    forwarding: new Documents(store, { noun: 'setting', prefix: 'network/forwarding/', schema: forwardingRecord }),
  }
}
