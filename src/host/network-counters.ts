/** Bytes the machine has moved over its own network cards, and how long its work has waited. */
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf, readIfPresent } from './files.ts'

export interface NetworkBytes {
  readonly received: number
  readonly sent: number
}

/** Cards with hardware behind them; bridges and taps would count the same bytes again. */
export async function networkBytes(root = '/sys/class/net'): Promise<NetworkBytes> {
  let [received, sent] = [0, 0]
  for (const name of await readdir(root)) {
    const isHardware = await stat(join(root, name, 'device')).then(
      () => true,
      () => false,
    )
    if (!isHardware) continue
    const counter = async (file: string) => Number((await readIfPresent(join(root, name, 'statistics', file))) ?? 0)
    received += await counter('rx_bytes')
    sent += await counter('tx_bytes')
  }
  return { received, sent }
}

/** Share of the last ten seconds in which some (or all) work waited for it, 0 to 1; nothing where the kernel does not say. */
export async function pressureOf(what: 'cpu' | 'io' | 'memory'): Promise<{ some?: number; full?: number }> {
  const text = await readIfPresent(`/proc/pressure/${what}`).catch((cause: unknown) => {
    // Compiled in and switched off.
    if (codeOf(cause) === 'EOPNOTSUPP') return undefined
    throw cause
  })
  return parsePressure(text ?? '')
}

/** Reads `some avg10=1.23 avg60=…` and `full …`. */
export function parsePressure(text: string): { some?: number; full?: number } {
  const found = [...text.matchAll(/^(some|full) avg10=([\d.]+)/gm)]
  return Object.fromEntries(found.map(([, kind = '', percent]) => [kind, Number(percent) / 100]))
}
