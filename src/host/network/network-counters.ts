/** Bytes the machine has moved over its own network cards, and how long its work has waited. */
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { codeOf, readIfPresent } from '../files.ts'

export interface NetworkBytes {
  readonly received: number
  readonly sent: number
}

/** Cards with hardware behind them; bridges and taps would count the same bytes again. */
export async function networkBytes(root = '/sys/class/net'): Promise<NetworkBytes> {
  const cards = Object.values(await cardBytes(root))
  const sum = (way: 'receive' | 'transmit') => cards.reduce((all, card) => all + card[way], 0)
  return { received: sum('receive'), sent: sum('transmit') }
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

/** Bytes each card with hardware behind it has moved. */
export async function cardBytes(
  root = '/sys/class/net',
): Promise<Record<string, { receive: number; transmit: number }>> {
  const cards: Record<string, { receive: number; transmit: number }> = {}
  for (const name of await hardware(root)) {
    const [receive, transmit] = [await counter(root, name, 'rx_bytes'), await counter(root, name, 'tx_bytes')]
    cards[name] = { receive, transmit }
  }
  return cards
}

async function hardware(root: string): Promise<string[]> {
  const names = await readdir(root)
  const isHardware = await Promise.all(
    names.map((name) =>
      stat(join(root, name, 'device')).then(
        () => true,
        () => false,
      ),
    ),
  )
  return names.filter((_, index) => isHardware[index])
}

async function counter(root: string, name: string, file: string): Promise<number> {
  return Number((await readIfPresent(join(root, name, 'statistics', file))) ?? 0)
}
