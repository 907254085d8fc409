/**
 * What can be known to go wrong with a container before anything of it is made: a storage that is not there, an address
 * somebody has, ids root may not hand out.
 */
import { isIPv4 } from 'node:net'
import { invalid } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { type ClaimedAddress, claimedAddresses, isSame } from '#guests/claimed-addresses.ts'
import type { Options } from '#guests/config.ts'
import { nounOf } from '#guests/kind.ts'
import { idMapOf } from '#guests/lxc/idmap.ts'
import { mountOf, wishOf } from '#guests/lxc/mountpoint.ts'
import type { GuestService } from '#guests/service.ts'
import { hasAnswer } from '#host/network/arp.ts'
import type { Host } from '#host/host.ts'
import { requireAllowed } from '#host/lxc/id-map.ts'
import { addresses } from '#host/network/ip.ts'
import type { StorageService } from '#storage/service.ts'

export interface BeforeMaking {
  readonly vmid: Vmid
  /** What it is to have. */
  readonly options: Options
  /** What it has already, and so nobody else. */
  readonly before?: Options
  /** Names of the mounts that are to be made. */
  readonly make: readonly string[]
}

export interface BeforeMakingDeps {
  readonly guests: Pick<GuestService, 'list'>
  readonly storage: Pick<StorageService, 'requireContent'>
  readonly host: Host
}

/** @throws Fault `missing` for a storage, `invalid` for addresses and ids, with what to do instead */
export async function requireMakeable(deps: BeforeMakingDeps, wish: BeforeMaking): Promise<void> {
  const { options, make } = wish
  const map = idMapOf(options)
  if (map !== undefined) await requireAllowed(map)
  for (const name of make) {
    const asked = wishOf(mountOf(name, options[name] ?? ''))
    if (asked.kind === 'allocate') await deps.storage.requireContent(asked.storage, 'rootdir')
  }
  await requireFreeAddresses(deps, wish)
}

/** The same of addresses a change brings. */
export async function requireFreeAfter(
  deps: Omit<BeforeMakingDeps, 'guests' | 'storage'> & { readonly guests: Pick<GuestService, 'list' | 'config'> },
  vmid: Vmid,
  set: Options,
): Promise<void> {
  if (!Object.keys(set).some((name) => /^net\d+$/.test(name))) return
  const { options: before } = await deps.guests.config(vmid, 'lxc')
  await requireFreeAddresses(deps, { vmid, options: { ...before, ...set }, before })
}

/** Of cards whose addresses are new. @throws Fault `invalid` naming the card, and who has the address */
async function requireFreeAddresses(
  { guests, host }: Pick<BeforeMakingDeps, 'guests' | 'host'>,
  { vmid, options, before = {} }: Pick<BeforeMaking, 'vmid' | 'options' | 'before'>,
): Promise<void> {
  const old = claimedAddresses('lxc', before)
  const wanted = claimedAddresses('lxc', options).filter((claim) => !old.some((one) => isSame(one, claim)))
  if (wanted.length === 0) return
  const twice = wanted.find((claim, at) => wanted.findIndex((one) => isSame(one, claim)) !== at)
  if (twice) throw taken(twice, 'another card of this container')
  const others = (await guests.list()).filter((guest) => guest.vmid !== vmid && !guest.isTemplate)
  const ofNode = await addresses(host)
  for (const claim of wanted) {
    const owner = others.find(({ kind, options: theirs }) =>
      claimedAddresses(kind, theirs).some((one) => isSame(one, claim)),
    )
    if (owner) throw taken(claim, `${nounOf[owner.kind]} ${owner.vmid}`)
    if (ofNode.some(({ link, address }) => link === claim.bridge && address === claim.address)) {
      throw taken(claim, 'this node')
    }
    // In a VLAN of its bridge the node itself is not, and cannot ask.
    const canAsk = isIPv4(claim.address) && claim.tag === undefined
    if (canAsk && (await hasAnswer(host, claim.bridge, claim.address)))
      throw taken(claim, `somebody on ${claim.bridge}`)
  }
}

function taken({ nic, address }: ClaimedAddress, by: string) {
  return invalid(
    { [nic]: `address ${address} is in use by ${by}` },
    { remedy: 'Choose another address, or free this one first.' },
  )
}
