/**
 * How far long work of a command is: on a terminal in a line that is replaced, elsewhere in a line now and then, as in the
 * log of a task.
 */
import { type Clock, systemClock } from '#base/clock.ts'
import { linesOf, type Mark, paceOf, progressLine } from '#base/pace.ts'
import type { Terminal } from './terminal.ts'
import { say } from './text.ts'

const showEveryMs = 100

/** Phases that are no names of what is worked on. */
const phasesInJapanese: Readonly<Record<string, string>> = {
  backups: 'バックアップ',
  index: '索引',
  packs: 'パック',
  rewrite: '書き直し',
  remove: '削除',
  look: '確認',
  zeros: 'ゼロ化',
}

/** A function to be told of every mark, in order. */
export function progressOn(
  { show, language, isWatched = false }: Pick<Terminal, 'show' | 'language' | 'isWatched'>,
  { isQuiet = false, clock = systemClock }: { readonly isQuiet?: boolean; readonly clock?: Clock } = {},
): (mark: Mark) => void {
  const [pace, isLineDue] = [paceOf(), linesOf()]
  let [lastPhase, lastAt] = ['', -Infinity]
  return (mark) => {
    const now = clock.monotonic()
    if (isQuiet || (mark.phase === lastPhase && now - lastAt < showEveryMs)) return
    ;[lastPhase, lastAt] = [mark.phase, now]
    const speed = pace(mark, now)
    if (!isLineDue(mark, now) && !isWatched) return
    const phase = (language === 'ja' ? phasesInJapanese[mark.phase] : undefined) ?? mark.phase
    show(
      progressLine({ ...mark, phase }, speed, (face) => say(language, 'left', face)),
      isWatched,
    )
  }
}
