/** Who sees which interface, and the start of applying them. */
import { confirmMostSeconds, wayOf } from '#network/machine/confirmation.ts'
import type { WireInterface } from '#network/machine/wire.ts'
import { applyNetwork } from '#operations/node/apply-network.ts'
import type { Call } from '../call.ts'

const anyBridge = ['any_bridge', 'any_local_bridge']

/** A bridge is seen by who may use it; everything else, and what is staged, by who may look at the node. */
export async function visibleInterfaces(
  { node, type }: { readonly node: string; readonly type?: string | undefined },
  { services, may }: Call,
): Promise<{ interfaces: WireInterface[]; changes: string }> {
  const { interfaces, changes } = await services.hostNetwork.list()
  const isMeant = (one: WireInterface) => {
    if (type === undefined || type === 'include_sdn') return true
    return anyBridge.includes(type) ? one.type === 'bridge' : one.type === type
  }
  const maySeeAll = await may(`/nodes/${node}`, 'Sys.Audit')
  const visible: WireInterface[] = []
  for (const one of interfaces.filter(isMeant)) {
    const zone = `/sdn/zones/localnetwork/${one.iface}`
    const mayUse = one.type === 'bridge' && ((await may(zone, 'SDN.Use')) || (await may(zone, 'SDN.Audit')))
    if (maySeeAll) visible.push(one)
    else if (mayUse) visible.push(nameOf(one))
  }
  return { interfaces: visible, changes: maySeeAll ? changes : '' }
}

/** What one has to know of a bridge to plug a guest into it. */
function nameOf({ iface, type, active, bridge_vlan_aware: isAware, comments }: WireInterface): WireInterface {
  const known = { active, bridge_vlan_aware: isAware, comments }
  return { iface, type, ...Object.fromEntries(Object.entries(known).filter(([, value]) => value !== undefined)) }
}

/** @param confirmSeconds 0: it stays without confirmation */
export async function applyStagedNetwork(call: Call, confirmSeconds: number): Promise<string> {
  const { hostNetwork } = call.services
  hostNetwork.requireOwn()
  hostNetwork.confirmations.expect()
  return call.start(applyNetwork, {
    user: call.who.user,
    way: wayOf(call.remoteAddress),
    confirmSeconds: Math.min(confirmSeconds, confirmMostSeconds),
  })
}
