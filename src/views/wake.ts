/** Waking a node: who it is by what it was told about itself, and a packet to where it sleeps. */
import { networkInterfaces } from 'node:os'
import { Fault } from '#base/fault.ts'
import { parsePropertyString } from '#base/schema/property-string.ts'
import { optional, type PropertyFormat, string } from '#base/schema/schema.ts'
import { wake } from '#host/network/wake-on-lan.ts'
import type { Services } from '#services.ts'

const format: PropertyFormat = {
  mac: { schema: string({ format: 'mac-addr' }), isDefaultKey: true },
  'bind-interface': { schema: optional(string()) },
  'broadcast-address': { schema: optional(string({ format: 'ipv4' })) },
}

/** @returns the address that was called @throws Fault `conflict` for the node that answers, `missing` when nobody said its address */
export async function wakeNode(
  { settings, nodeConfigs }: Pick<Services, 'settings' | 'nodeConfigs'>,
  node: string,
): Promise<string> {
  if (node === settings.node) throw new Fault('conflict', `'${node}' is local node, cannot wake my self!`)
  const { options } = await nodeConfigs.of(node)
  const parsed = parsePropertyString(format, options.wakeonlan ?? '')
  if (!parsed.ok) throw new Fault('missing', `No wake on LAN MAC address defined for '${node}'!`)
  const mac = String(parsed.values.mac)
  const broadcast = parsed.values['broadcast-address']
  await wake(mac, {
    from: addressOf(parsed.values['bind-interface']),
    ...(broadcast === undefined ? {} : { broadcast: String(broadcast) }),
  })
  return mac
}

function addressOf(name: string | number | boolean | undefined): string | undefined {
  if (name === undefined) return undefined
  const found = networkInterfaces()[String(name)]?.find(({ family }) => family === 'IPv4')
  if (!found) throw new Fault('missing', `network interface '${String(name)}' does not exist or has no address`)
  return found.address
}
