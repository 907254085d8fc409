/** Bytes each card of a running guest has moved, by the counters of its tap. */
import { join } from 'node:path'
import { readIfPresent } from '#host/files.ts'
import { networkRecords } from '#network/records.ts'
import type { Store } from '#store/store.ts'

export interface CardTraffic {
  readonly vmid: string
  /** `net0` */
  readonly dev: string
  readonly in: number
  readonly out: number
}

/** Taps in a namespace of their own (drills) are not seen from here and left out. */
export async function traffic(store: Store): Promise<CardTraffic[]> {
  const taps = await networkRecords(store).taps.list()
  const found = await Promise.all(
    taps.map(async ({ name, value: { vmid, nic } }) => {
      const counter = (file: string) => readIfPresent(join('/sys/class/net', name, 'statistics', file))
      // What the node sends into a tap is what the guest receives.
      const [received, sent] = await Promise.all([counter('tx_bytes'), counter('rx_bytes')])
      if (received === undefined || sent === undefined) return undefined
      return { vmid: String(vmid), dev: nic, in: Number(received), out: Number(sent) }
    }),
  )
  return found.filter((one) => one !== undefined).toSorted((a, b) => Number(a.vmid) - Number(b.vmid))
}
