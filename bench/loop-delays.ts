/** Asks a daemon that was started with `loop-lag.ts` how late its event loop was. */
import { readFileSync } from 'node:fs'
import { waitFor } from '#base/clock.ts'
import { type BenchNode, lagFileOf } from './bench-node.ts'
import type { LoopLag } from './loop-lag.ts'

/** Since it was last asked. */
export async function lagOf({ daemonPid, settings }: BenchNode): Promise<LoopLag> {
  const file = lagFileOf(settings)
  const known = () => {
    try {
      return readFileSync(file, 'utf8').trimEnd().split('\n')
    } catch {
      return []
    }
  }
  const before = known().length
  process.kill(daemonPid, 'SIGUSR2')
  await waitFor(() => known().length > before, { what: 'the figures of the loop', timeoutMs: 10_000 })
  return JSON.parse(known().at(-1) ?? '') as LoopLag
}
