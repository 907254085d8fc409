/** The network cards of a running container, as its own network namespace has them. */
import type { Vmid } from '#base/ids.ts'
import type { GuestService } from '#guests/service.ts'
import type { Host } from '#host/host.ts'
import { addressesIn } from '#host/network/ip.ts'

/** @throws Fault `conflict` when it does not run */
export async function containerInterfaces(
  { guests, host }: { readonly guests: Pick<GuestService, 'initOf'>; readonly host: Host },
  vmid: Vmid,
) {
  const found = await addressesIn(host, await guests.initOf(vmid))
  return found.map(({ name, mac, addresses }) => {
    const first = (family: string) => {
      const one = addresses.find((address) => address.family === family)
      return one && `${one.address}/${one.prefix}`
    }
    const [inet, inet6] = [first('inet'), first('inet6')]
    return {
      name,
      hwaddr: mac,
      'hardware-address': mac,
      ...(inet === undefined ? {} : { inet }),
      ...(inet6 === undefined ? {} : { inet6 }),
      'ip-addresses': addresses.map(({ address, family, prefix }) => ({
        'ip-address': address,
        'ip-address-type': family,
        prefix,
      })),
    }
  })
}
