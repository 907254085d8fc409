/**
 * Loaded into a daemon that is measured: on SIGUSR2 it appends the delays of its event loop since the last time,
 * in milliseconds, to the file in `BENCH_LAG_FILE`.
 */
import { appendFileSync } from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'

export interface LoopLag {
  readonly p50: number
  readonly p99: number
  readonly p999: number
  readonly max: number
}

const delays = monitorEventLoopDelay({ resolution: 1 })
delays.enable()
process.on('SIGUSR2', () => {
  const ms = (share: number) => delays.percentile(share) / 1e6
  const lag: LoopLag = { p50: ms(50), p99: ms(99), p999: ms(99.9), max: delays.max / 1e6 }
  appendFileSync(process.env.BENCH_LAG_FILE ?? '', `${JSON.stringify(lag)}\n`)
  delays.reset()
})
