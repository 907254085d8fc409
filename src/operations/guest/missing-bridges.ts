/**
 * A card may name a bridge this node does not have: it may be made later, or the guest be moved. As in Proxmox VE
 * only the start fails. But who has just written it is told at once, in a line of the log that makes no failure.
 */
import type { Options } from '#guests/config.ts'
import type { GuestService } from '#guests/service.ts'

export async function sayMissingBridges(
  guests: Pick<GuestService, 'withoutBridge'>,
  options: Options,
  log: (line: string) => void,
): Promise<void> {
  for (const { name, bridge } of await guests.withoutBridge(options)) {
    log(`note: ${name}: bridge '${bridge}' does not exist on this node; the guest cannot start before it does`)
  }
}
