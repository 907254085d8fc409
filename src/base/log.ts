/** Log of the daemon: one JSON object per line on stderr. Never given a secret, a ticket or a body. */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error'

export interface Log {
  readonly debug: (message: string, facts?: LogFacts) => void
  readonly info: (message: string, facts?: LogFacts) => void
  readonly warn: (message: string, facts?: LogFacts) => void
  readonly error: (message: string, facts?: LogFacts) => void
  /** One line for who reads the log of the task that is at work; absent where none is. */
  tell?: ((line: string) => void) | undefined
}
export type LogFacts = Readonly<Record<string, unknown>>

const order: readonly LogLevel[] = ['debug', 'info', 'warn', 'error']

/** A log that hands each line, without its newline, to `write`. */
export function createLog(write: (line: string) => void, from: LogLevel = 'info'): Log {
  const at =
    (level: LogLevel) =>
    (message: string, facts: LogFacts = {}) => {
      if (order.indexOf(level) < order.indexOf(from)) return
      write(JSON.stringify({ time: new Date().toISOString(), level, message, ...plain(facts) }))
    }
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

/** Errors do not survive JSON by themselves. */
function plain(facts: LogFacts): LogFacts {
  return Object.fromEntries(
    Object.entries(facts).map(([key, value]) => [key, value instanceof Error ? (value.stack ?? value.message) : value]),
  )
}

export const silentLog: Log = createLog(() => {})
