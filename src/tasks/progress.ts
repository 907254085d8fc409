/** How far a task is: in a file for its status, and now and then in its log. */
import { renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import { linesOf, paceOf, progressLine } from '#base/pace.ts'
import type { TaskProgress } from './archive.ts'
import { isNoSpace } from './log.ts'
import type { Around } from './perform.ts'
import type { Redactor } from './secrets.ts'

const progressEveryMs = 200

export interface Progressing {
  readonly clock: Clock
  readonly hide: Redactor
  readonly log: (line: string) => void
}

/** Progress is for people who wait: it is written at most five times a second and not synced, and now and then logged. */
export function progressWriter(directory: string, { clock, hide, log }: Progressing): NonNullable<Around['progress']> {
  const path = join(directory, 'progress.json')
  const [pace, isLineDue] = [paceOf(), linesOf()]
  let [lastPhase, lastAt] = ['', -Infinity]
  return (phase, fraction, bytes) => {
    const now = clock.monotonic()
    if (phase === lastPhase && now - lastAt < progressEveryMs) return
    ;[lastPhase, lastAt] = [phase, now]
    const mark = { phase: hide.text(phase), fraction, bytes }
    const speed = pace(mark, now)
    if (isLineDue(mark, now)) log(progressLine(mark, speed))
    const progress: TaskProgress = { phase: mark.phase, ...(fraction === undefined ? {} : { fraction }), ...speed }
    try {
      writeFileSync(`${path}.tmp`, JSON.stringify(progress), { mode: 0o600 })
      renameSync(`${path}.tmp`, path)
    } catch (error) {
      // Nobody's work fails for want of space to tell of it.
      if (!isNoSpace(error)) throw error
    }
  }
}
