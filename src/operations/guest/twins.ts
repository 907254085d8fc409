/**
 * Two guests with one MAC address on one network both lose their connections. A restore beside the original is wanted all
 * the same, so who makes one is told in a line of the log that makes no failure.
 */
import type { Options } from '#guests/config.ts'
import type { GuestDocument } from '#guests/documents.ts'
import type { GuestKind } from '#guests/kind.ts'
import * as container from '#guests/lxc/nic.ts'
import * as machine from '#guests/qemu/nic.ts'
import type { GuestService } from '#guests/service.ts'
import type { Vmid } from '#base/ids.ts'

export async function sayTwins(
  guests: Pick<GuestService, 'configured'>,
  { vmid, ...guest }: { readonly vmid: Vmid; readonly kind: GuestKind; readonly options: Options },
  log: (line: string) => void,
): Promise<void> {
  const own = macsOf(guest)
  if (own.size === 0) return
  for (const { vmid: other, document } of await guests.configured()) {
    if (other === vmid) continue
    for (const [mac, card] of macsOf(document)) {
      const twin = own.get(mac)
      if (twin === undefined) continue
      log(
        `note: ${twin}: guest ${other} has the same MAC address (${mac}, its ${card}): on one network only one of them can run; unique gives a new one`,
      )
    }
  }
}

/** Names of network cards by their addresses. */
function macsOf({ kind, options }: Pick<GuestDocument, 'kind' | 'options'>): Map<string, string> {
  const cards = kind === 'lxc' ? container.nicsOf(options) : machine.nicsOf(options)
  return new Map(cards.filter(({ mac }) => mac !== '').map(({ mac, name }) => [mac.toUpperCase(), name]))
}
