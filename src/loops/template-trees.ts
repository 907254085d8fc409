/** Sees to it that the next container of a template that is in use can be made at once. */
import type { Services } from '#services.ts'
import { keepGoing } from './rounds.ts'

const everyMs = 1_000

export function prepareTemplateTrees(
  deps: Pick<Services, 'templateTrees' | 'clock' | 'log'>,
  signal: AbortSignal,
): void {
  const round = () => deps.templateTrees.lookAhead(signal)
  const [failed, ended] = ['preparing the tree of a template failed', 'nobody prepares trees of templates any more']
  keepGoing(deps, { everyMs, isAtOnce: true, round, failed, ended }, signal)
}
