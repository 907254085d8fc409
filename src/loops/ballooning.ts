/**
 * Keeps the memory the node uses below what its owner wants (`ballooning-target`), by the balloons of the guests that
 * allow it.
 *
 * Takes no input on purpose: what each guest has is asked of its QEMU in every round, so that nothing is remembered that
 * a restart could lose.
 */
import { MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { type BalloonedGuest, balloonBoundsOf, shareOut } from '#guests/qemu/ballooning.ts'
import type { Services } from '#services.ts'
import { keepGoing } from './rounds.ts'

const everyMs = 3_000
const defaultTarget = 80
const answerMs = 2_000

type BalloonDeps = Pick<Services, 'settings' | 'clock' | 'log' | 'node' | 'nodeConfigs' | 'guests'>

export function keepMemoryFree(deps: BalloonDeps, signal: AbortSignal): void {
  const failed = 'sharing out memory among guests failed'
  const ended = 'nobody shares out memory any more'
  keepGoing(deps, { everyMs, round: () => round(deps, signal), failed, ended }, signal)
}

async function round(deps: BalloonDeps, signal: AbortSignal): Promise<void> {
  const { settings, node, nodeConfigs, guests } = deps
  const found: Asked[] = []
  for (const { vmid, options } of await guests.runningOptions()) {
    const bounds = balloonBoundsOf(options)
    if (!bounds) continue
    const balloon = await command<{ readonly actual: number }>(deps, vmid, 'query-balloon', {}, signal)
    if (balloon) found.push({ vmid, ...bounds, nowMiB: Math.floor(balloon.actual / MiB) })
  }
  if (found.length === 0) return
  const { totalBytes, usedBytes } = await node.memory()
  const { options } = await nodeConfigs.of(settings.node)
  const targetPercent = Number(options['ballooning-target'] ?? defaultTarget)
  const memory = { totalMiB: totalBytes / MiB, usedMiB: usedBytes / MiB, targetPercent }
  const sizes = shareOut(memory, found)
  for (const { vmid } of found) {
    const sizeMiB = sizes.get(vmid)
    if (sizeMiB !== undefined) await command(deps, vmid, 'balloon', { value: sizeMiB * MiB }, signal)
  }
}

type Asked = BalloonedGuest & { readonly vmid: Vmid }

/** Undefined for a guest that does not answer: it may be busy, or be going. */
async function command<T>(
  { guests, log }: BalloonDeps,
  vmid: Vmid,
  name: string,
  args: object,
  signal: AbortSignal,
): Promise<T | undefined> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(answerMs)])
  try {
    await using monitor = await guests.qmp(vmid, 'short', limit)
    return await monitor.execute<T>(name, args, { signal: limit })
  } catch (fault) {
    if (signal.aborted || !isFault(fault)) throw fault
    log.info('a guest was not reached for its balloon', { vmid, reason: fault.message })
    return undefined
  }
}
