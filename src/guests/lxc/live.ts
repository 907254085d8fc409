/** Options whose change a running container takes at once; every other waits for its next start. */
import { isFault } from '#base/fault.ts'
import type { Errors } from '#base/schema/check.ts'
import type { Options } from '../config.ts'
import { liveCards } from './cards.ts'
import { liveLimits } from './limits.ts'
import { type Nic, nicOf } from './nic.ts'

export function liveNames(running: Options, wanted: Options): string[] {
  return [...liveLimits(running, wanted), ...liveCards(running, wanted)]
}

export function isCard(name: string): boolean {
  return /^net\d+$/.test(name)
}

export interface LiveHands {
  /** Puts the limits of these options in force. */
  readonly limit: (options: Options) => Promise<unknown>
  readonly card: (before: Nic, after: Nic) => Promise<void>
}

export interface Followed {
  /** What the container has now. */
  readonly options: Options
  readonly followed: readonly string[]
  /** What failed, with why; it is as it was. */
  readonly errors: Errors
}

/** Limits are changed in one act, each card in one of its own. */
export async function follow(running: Options, wanted: Options, hands: LiveHands): Promise<Followed> {
  const names = liveNames(running, wanted)
  const limits = names.filter((name) => !isCard(name))
  const acts = [...(limits.length === 0 ? [] : [limits]), ...names.filter(isCard).map((name) => [name])]
  const errors: Record<string, string> = {}
  let options = running
  for (const changed of acts) {
    const [name = ''] = changed
    const next = withChanges(options, changed, wanted)
    try {
      if (isCard(name)) await hands.card(nicOf(name, running[name] ?? ''), nicOf(name, wanted[name] ?? ''))
      else await hands.limit(next)
      options = next
    } catch (fault) {
      if (!isFault(fault)) throw fault
      for (const one of changed) errors[one] = `hotplug problem - ${fault.message}`
    }
  }
  return { options, followed: names.filter((name) => errors[name] === undefined), errors }
}

function withChanges(options: Options, names: readonly string[], wanted: Options): Options {
  const rest = Object.entries(options).filter(([name]) => !names.includes(name))
  const changed = names.flatMap((name) => (wanted[name] === undefined ? [] : [[name, wanted[name]] as const]))
  return Object.fromEntries([...rest, ...changed])
}
