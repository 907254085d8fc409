/** What tasks about one guest have in common: they bear its number, and hold its lock while they run. */
import type { OperationFacts } from '#tasks/operation.ts'

export const aboutOneGuest: OperationFacts<{ readonly vmid: number }> = {
  id: ({ vmid }) => vmid,
  locks: ({ vmid }) => [`guest/${vmid}`],
}
