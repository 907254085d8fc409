/**
 * Two guests with one MAC address on one network both lose their connections. A restore beside the original is wanted all
 * the same, so who makes one is told in a line of the log that makes no failure.
 */
import type { Options } from '#guests/config.ts'
import type { GuestService } from '#guests/service.ts'
import type { Vmid } from '#base/ids.ts'

const macPattern = /\b[0-9a-f]{2}(?::[0-9a-f]{2}){5}\b/i

export async function sayTwins(
  guests: Pick<GuestService, 'configured'>,
  { vmid, options }: { readonly vmid: Vmid; readonly options: Options },
  log: (line: string) => void,
): Promise<void> {
  const own = macsOf(options)
  if (own.size === 0) return
  for (const { vmid: other, document } of await guests.configured()) {
    if (other === vmid) continue
    for (const [mac, card] of macsOf(document.options)) {
      const twin = own.get(mac)
      if (twin === undefined) continue
      log(
        `note: ${twin}: guest ${other} has the same MAC address (${mac}, its ${card}): on one network only one of them can run; unique gives a new one`,
      )
    }
  }
}

/** Names of network cards by their addresses. */
function macsOf(options: Options): Map<string, string> {
  const macs = new Map<string, string>()
  for (const [name, text] of Object.entries(options)) {
    const mac = /^net\d+$/.test(name) ? macPattern.exec(text)?.[0] : undefined
    if (mac !== undefined) macs.set(mac.toUpperCase(), name)
  }
  return macs
}
