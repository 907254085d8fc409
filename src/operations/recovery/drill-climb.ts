/**
 * The rungs of a drill, each asking the world: the datastore, what was restored, the guest's console, somebody inside
 * it, its network, its application. The order and the meaning of a miss are `recovery/ladder.ts`'s.
 */
import { Fault, messageOf } from '#base/fault.ts'
import { asVmid, asVolumeId, type Vmid } from '#base/ids.ts'
import { climb, type Rung } from '#recovery/ladder.ts'
import { type Level, meanings } from '#recovery/level.ts'
import type { PhaseTimes } from '#recovery/record.ts'
import type { ClimbContext, DrillDeps, DrillOutcome, RestoredScratch, Scratch } from './drill-facts.ts'
import { waitForAddress } from './drill-network.ts'
import { runProbes } from './drill-probes.ts'
import { drilledOf } from './kinds.ts'

/** What the rungs learn from one another on the way up. */
interface Findings {
  reader?: Awaited<ReturnType<DrillDeps['backup']['open']>>
  restored?: RestoredScratch
  address?: string
  phases: { -readonly [P in keyof PhaseTimes]: number }
}

export async function climbLadder(context: ClimbContext): Promise<DrillOutcome> {
  const { params, deps, log, done } = context
  const findings: Findings = { phases: {} }
  try {
    const { reached, verdicts } = await climb(rungsOf(context, findings), params.wanted, {
      clock: deps.clock,
      onVerdict: ({ level, held, found, tookMs }) =>
        log(`${level} ${held ? 'ok  ' : 'FAIL'} ${meanings[level].en}: ${found} (${(tookMs / 1000).toFixed(1)} s)`),
    })
    await drilledOf(done.point.guest)
      .photograph?.(deps, asVmid(done.point.scratch))
      .catch((error: unknown) => context.warn(`no picture of the screen: ${messageOf(error)}`))
    const manifest = findings.reader?.manifest
    return {
      reached: reached ?? null,
      verdicts: [...verdicts],
      phases: findings.phases,
      pointInTime: manifest?.pointInTime ?? null,
      name: findings.restored?.name ?? null,
      config: findings.restored?.config ?? null,
      parts: findings.restored?.parts ?? [],
    }
  } finally {
    await findings.reader?.[Symbol.asyncDispose]()
  }
}

function rungsOf(context: ClimbContext, findings: Findings): Record<Level, Rung> {
  const { params, deps, done, progress, signal } = context
  const scratch: Vmid = asVmid(done.point.scratch)
  const drilled = drilledOf(done.point.guest)
  const booted = (): Scratch => {
    const { config, toldName } = known(findings.restored)
    const timeoutMs = params.bootTimeoutSeconds * 1000
    return { deps, scratch, config, toldName, netns: done.network.netns, timeoutMs, signal }
  }
  const timed = async <T>(phase: keyof PhaseTimes, work: () => Promise<T>): Promise<T> => {
    progress(phase)
    const began = deps.clock.monotonic()
    const result = await work()
    findings.phases[phase] = (findings.phases[phase] ?? 0) + Math.round(deps.clock.monotonic() - began)
    return result
  }
  return {
    L0: async () => {
      findings.reader = await deps.backup.open(asVolumeId(done.point.archive))
      return drilled.contents(findings.reader.manifest)
    },
    L1: async () => {
      const { chunks } = await deps.backup.verify(asVolumeId(done.point.archive), {
        signal,
        onProgress: (fraction) => progress('verify', fraction),
      })
      return `${chunks} chunks match their digests`
    },
    L2: async () => {
      findings.restored = await drilled.restore(context, known(findings.reader))
      const { phases, parts } = findings.restored
      Object.assign(findings.phases, phases)
      return parts.map((part) => `${'drive' in part ? part.drive : part.name} ${part.digest.slice(0, 12)}…`).join(', ')
    },
    L3: () =>
      timed('boot', async () => {
        await deps.guests.start(scratch, {
          netns: done.network.netns,
          bridge: done.network.bridge,
          startedBy: context.task.upid,
          toldName: known(findings.restored).toldName,
          keepsConsole: true,
          signal,
        })
        return drilled.untilUp(booted())
      }),
    L4: () => timed('ready', () => drilled.untilAnswering(booted())),
    L5: () =>
      timed('ready', async () => {
        const { address, found } = await waitForAddress(booted(), done.network, drilled)
        findings.address = address
        return found
      }),
    L6: () =>
      timed('application', () => runProbes({ ...booted(), drilled, address: known(findings.address) }, params.probes)),
  }
}

/** A rung runs only when those below it held, so what they found is there. */
function known<T>(value: T | undefined): T {
  if (value === undefined) throw new Fault('failed', 'a level was tried before the one below it')
  return value
}
