/**
 * The machine's network as a value: what is there, what shall be there, what was there. All three have this one
 * shape, so one compiler leads from any of them to any other, and going back is the same work as going forward.
 *
 * It is plain JSON: what was there is kept in a task's journal until the change is confirmed.
 */
export type LinkState = {
  readonly name: string
  /** `bridge`, `bond`, `vlan`, `tun`, `veth`, …; absent for hardware and loopback. */
  readonly kind?: string
  /** Counts when it is made; empty: the kernel's choice. */
  readonly mac: string
  readonly isUp: boolean
  /** Absent: whatever it is. */
  readonly mtu?: number
  /** Bridge or bond it belongs to. */
  readonly master?: string
  /** A note that says whose it is. */
  readonly alias?: string
  readonly bridge?: { readonly isVlanAware: boolean }
  readonly bond?: BondState
  readonly vlan?: { readonly id: number; readonly parent: string }
  /** VLANs it carries; absent where its bridge does not tell them apart, or where they may be whatever they are. */
  readonly vlans?: readonly VlanRange[]
  /** The other end of this cable is in another network namespace, and so is outside of this machine. */
  readonly leadsOutside?: boolean
  readonly addresses: readonly AddressState[]
  /** Set by somebody, not those that follow from its addresses. */
  readonly routes: readonly RouteState[]
}

export type BondState = {
  readonly mode: string
  readonly hashPolicy: string
  readonly primary?: string
}

export type VlanRange = {
  readonly first: number
  readonly last: number
  /** Frames without a tag belong to it, and leave without one. */
  readonly isOwn: boolean
}

export type AddressState = {
  readonly family: 'inet' | 'inet6'
  /** `10.0.0.1/24` */
  readonly cidr: string
  /** `eth0:1`, where it is not the link's own name. */
  readonly label?: string
}

export type RouteState = {
  readonly family: 'inet' | 'inet6'
  /** `default`, `10.1.0.0/16` */
  readonly destination: string
  readonly gateway?: string
  readonly metric?: number
}

/** By name. */
export type NetworkState = Readonly<Record<string, LinkState>>

/** The names of all links that are not as they shall be. */
export function differing(now: NetworkState, shall: NetworkState): string[] {
  const names = new Set([...Object.keys(now), ...Object.keys(shall)])
  return [...names].filter((name) => textOf(asFarAsWanted(now[name], shall[name])) !== textOf(shall[name])).toSorted()
}

/** Without what may be whatever it is. */
function asFarAsWanted(link: LinkState | undefined, wanted: LinkState | undefined): LinkState | undefined {
  if (!link || !wanted) return link
  const { mtu, vlans, ...rest } = link
  return {
    ...rest,
    ...(wanted.mtu === undefined || mtu === undefined ? {} : { mtu }),
    ...(wanted.vlans === undefined || vlans === undefined ? {} : { vlans }),
  }
}

/** `now`, but for the named links, which are as in `wanted`: also gone, where they are not in there. */
export function withLinksOf(now: NetworkState, wanted: NetworkState, names: readonly string[]): NetworkState {
  const links: Record<string, LinkState> = { ...now }
  for (const name of names) {
    const link = wanted[name]
    if (link) links[name] = link
    else delete links[name]
  }
  return links
}

/** The same text for the same link, whatever the order of its keys. */
function textOf(link: LinkState | undefined): string {
  if (!link) return ''
  const { addresses, routes, vlans = [], ...rest } = link
  const sorted = (items: readonly object[]) => items.map((item) => canonical(item)).toSorted()
  return canonical({ ...rest, addresses: sorted(addresses), routes: sorted(routes), vlans: sorted(vlans) })
}

/** The same text for the same value. */
export function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  )
}
