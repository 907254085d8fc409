/** What the engine gets from a command. */
import { systemClock } from '#base/clock.ts'
import { type Log, type LogFacts, silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'

/** What it notices beside what it was asked for is for whoever typed the command. */
const log: Log = { ...silentLog, warn: said, error: said }

export const deps = { clock: systemClock, random: systemRandom, log }

function said(message: string, facts: LogFacts = {}): void {
  const { stderr } = process
  const told = Object.entries(facts).map(([name, fact]) => {
    return `${name === 'cause' ? '' : `${name} `}${fact instanceof Error ? fact.message : String(fact)}`
  })
  stderr.write(`${stderr.isTTY ? '\r\u001B[K' : ''}${[message, ...told].join('; ')}\n`)
}
