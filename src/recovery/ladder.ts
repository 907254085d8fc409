/**
 * Climbs the ladder: each rung is tried in order, and the first that does not hold ends the climb.
 *
 * A rung that fails is a finding, not an error of the drill: the record says which level was reached and
 * why the next was not. Only an abort is thrown on, because an aborted drill has proven nothing either way.
 */
import type { Clock } from '#base/clock.ts'
import { isFault, messageOf } from '#base/fault.ts'
import { type Level, levels } from './level.ts'

/** Looks whether one level holds; returns what was seen, throws what was not. */
export type Rung = () => Promise<string>

export type LevelVerdict = {
  readonly level: Level
  readonly held: boolean
  /** What was seen, or what was missing, in a sentence. */
  readonly found: string
  readonly tookMs: number
}

export interface Climb {
  /** Nothing when even the catalogue could not be read. */
  readonly reached: Level | undefined
  readonly verdicts: readonly LevelVerdict[]
}

/**
 * @param rungs one per level
 * @param upTo the highest level asked for
 */
export async function climb(
  rungs: Readonly<Record<Level, Rung>>,
  upTo: Level,
  facts: { readonly clock: Clock; readonly onVerdict: (verdict: LevelVerdict) => void },
): Promise<Climb> {
  const verdicts: LevelVerdict[] = []
  let reached: Level | undefined
  for (const level of levels.slice(0, levels.indexOf(upTo) + 1)) {
    const verdict = await tryRung(level, rungs[level], facts.clock)
    verdicts.push(verdict)
    facts.onVerdict(verdict)
    if (!verdict.held) break
    reached = level
  }
  return { reached, verdicts }
}

async function tryRung(level: Level, rung: Rung, clock: Clock): Promise<LevelVerdict> {
  const began = clock.monotonic()
  const took = () => Math.round(clock.monotonic() - began)
  try {
    const found = await rung()
    return { level, held: true, found, tookMs: took() }
  } catch (error) {
    if (isFault(error, 'aborted')) throw error
    return { level, held: false, found: messageOf(error), tookMs: took() }
  }
}
