/** What containers take over from the node where their options say nothing. */
import { nameServers, searchDomains } from '#host/network/resolver.ts'
import type { OfNode } from './told.ts'

export async function factsOfNode(): Promise<OfNode> {
  return {
    dns: { servers: await nameServers(), search: await searchDomains() },
    // Asked by few, and the first question of a process takes 10 ms.
    get timezone() {
      return Intl.DateTimeFormat().resolvedOptions().timeZone
    },
  }
}
