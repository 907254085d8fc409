/** What containers take over from the node where their options say nothing. */
import { nameServers, searchDomains } from '#host/resolver.ts'
import type { OfNode } from './told.ts'

export async function factsOfNode(): Promise<OfNode> {
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions()
  return { dns: { servers: await nameServers(), search: await searchDomains() }, timezone: timeZone }
}
