/**
 * Consoles: which are promised to whom, which are open, and when each ends.
 *
 * A console is opened in two acts, as clients know it. The first promises one under a number from 5900 to 5999
 * and hands out a ticket; the second, within ten seconds and with that ticket, takes it, once. The number is a
 * name, no port: nothing listens, so nothing but the API leads to a guest.
 *
 * Invariants: each console has a task for as long as it waits or is open, and ends with it; what it shows is
 * connected to when the client is there, never before. A console closes when either side ends, when its task is
 * stopped, when its user loses the right to look, and with the daemon. Nothing here knows what a guest is.
 */
import { timingSafeEqual } from 'node:crypto'
import type { Duplex } from 'node:stream'
import type { Clock } from '#base/clock.ts'
import { Fault, messageOf } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { consoleLimits } from './limits.ts'

/** The task that stands for a console. */
export interface ConsoleTask {
  readonly log: (line: string) => void
  /** Fires when somebody asks it to stop. */
  readonly signal: AbortSignal
  readonly end: (exitstatus: string) => Promise<void>
}

export interface ConsoleFacts {
  readonly ticket: string
  readonly task: ConsoleTask
  /** Serves the client until either side has ended. @throws Fault when there is nothing to serve, or for a bad client */
  readonly serve: (client: Duplex) => Promise<void>
  /** Serves a further connection of the same client; absent: there is one alone. */
  readonly serveMore?: (client: Duplex) => Promise<void>
  /** How long the client may take to come. */
  readonly waitMs?: number
  /** Whether the user may look at it now. */
  readonly mayStill: () => Promise<boolean>
}

/** A number that is taken until it is given back. */
export interface Promised {
  readonly port: number
  readonly giveBack: () => void
}

interface Entry {
  readonly authId: string
  readonly stop: AbortController
  readonly client: PromiseWithResolvers<Duplex>
  /** Absent until it can be taken. */
  facts?: ConsoleFacts
  isTaken: boolean
  ended: Promise<void>
}

export interface ConsoleNeeds {
  readonly clock: Clock
  readonly log: Log
  /** Bounds; defaults in `consoleLimits`. */
  readonly waitMs?: number
  readonly askAgainMs?: number
}

export class ConsoleService {
  readonly #clock: Clock
  readonly #log: Log
  readonly #waitMs: number
  readonly #askAgainMs: number
  readonly #entries = new Map<number, Entry>()
  #lastPort: number = consoleLimits.lastPort
  #isClosing = false

  constructor({ clock, log, waitMs, askAgainMs }: ConsoleNeeds) {
    this.#clock = clock
    this.#log = log
    this.#waitMs = waitMs ?? consoleLimits.waitMs
    this.#askAgainMs = askAgainMs ?? consoleLimits.askAgainMs
  }

  /** @throws Fault `exhausted` when the node, or this user, has too many */
  promise(authId: string): Promised {
    if (this.#isClosing) throw new Fault('unavailable', 'the node is shutting down')
    const own = [...this.#entries.values()].filter((entry) => entry.authId === authId).length
    const port = own < consoleLimits.perUser ? this.#freePort() : undefined
    if (port === undefined) {
      throw new Fault(
        'exhausted',
        `${this.#entries.size} consoles are open, ${own} of them by ${authId}: that is all`,
        {
          remedy: 'Close some: `hako task list --source active` names them.',
        },
      )
    }
    this.#lastPort = port
    const [stop, client] = [new AbortController(), Promise.withResolvers<Duplex>()]
    this.#entries.set(port, { authId, stop, client, isTaken: false, ended: Promise.resolve() })
    return { port, giveBack: () => void this.#entries.delete(port) }
  }

  /** From now on, for ten seconds, the promised console can be taken. */
  open(port: number, facts: ConsoleFacts): void {
    const entry = this.#entries.get(port)
    if (!entry) throw new Error(`console ${port} was not promised`)
    entry.facts = facts
    entry.ended = this.#run(port, entry, facts)
  }

  /**
   * Takes the console this ticket was handed out for.
   * @returns gives the console its client, who is served from then on
   * @throws Fault `missing` when none waits for this ticket
   */
  take(port: number, ticket: string): (client: Duplex) => void {
    const entry = this.#entries.get(port)
    const serveMore = entry?.isTaken === true ? entry.facts?.serveMore : undefined
    const isOpen = entry?.isTaken === false || serveMore !== undefined
    if (!entry?.facts || !isOpen || !isSame(entry.facts.ticket, ticket)) {
      throw new Fault('missing', `console ${port} does not exist`, {
        remedy: 'A console is taken once, within seconds. Ask for a new one.',
      })
    }
    entry.isTaken = true
    return (client) => {
      client.on('error', () => {}) // `close` follows, and says it all.
      if (this.#entries.get(port) !== entry) client.destroy()
      else if (serveMore) void this.#serveMore(port, client, serveMore)
      else entry.client.resolve(client)
    }
  }

  /** Who the console of this number is for, if there is one. */
  authIdAt(port: number): string | undefined {
    return this.#entries.get(port)?.authId
  }

  /** Ends all of them. */
  async close(): Promise<void> {
    this.#isClosing = true
    const all = [...this.#entries.values()]
    for (const { stop } of all) stop.abort(new Fault('aborted', 'the node is shutting down'))
    await Promise.all(all.map(({ ended }) => ended))
  }

  /** The next one round: a number that was just given back may still be in somebody's hands. */
  #freePort(): number | undefined {
    const { firstPort, lastPort } = consoleLimits
    const count = lastPort - firstPort + 1
    const ports = Array.from({ length: count }, (_, at) => firstPort + ((this.#lastPort - firstPort + 1 + at) % count))
    return ports.find((port) => !this.#entries.has(port))
  }

  /** Never rejects. */
  async #run(port: number, entry: Entry, { task, serve, mayStill }: ConsoleFacts): Promise<void> {
    const { stop } = entry
    const done = new AbortController()
    task.signal.addEventListener('abort', () => stop.abort(new Fault('aborted', 'stopped')), { signal: done.signal })
    let exitstatus = 'OK'
    try {
      const client = await this.#untilClient(entry, done.signal)
      task.log('a client is connected')
      stop.signal.addEventListener('abort', () => client.destroy(asError(stop.signal.reason)), { signal: done.signal })
      if (stop.signal.aborted) client.destroy()
      void this.#untilForbidden(mayStill, stop, done.signal)
      await served(client, serve)
      stop.signal.throwIfAborted()
    } catch (error) {
      exitstatus = messageOf(error)
      if (!(error instanceof Fault)) this.#log.error('bug in a console', { port, error })
    } finally {
      done.abort()
      this.#entries.delete(port)
    }
    await task.end(exitstatus).catch((error: unknown) => {
      this.#log.error('the task of a console could not be ended', { port, error })
    })
  }

  /** Never rejects. The first connection, when it ends, tells why. */
  async #serveMore(port: number, client: Duplex, serve: (client: Duplex) => Promise<void>): Promise<void> {
    try {
      await served(client, serve)
    } catch (error) {
      if (!(error instanceof Fault)) this.#log.error('bug in a console', { port, error })
    }
  }

  async #untilClient({ client, stop, facts }: Entry, done: AbortSignal): Promise<Duplex> {
    const waitMs = facts?.waitMs ?? this.#waitMs
    const late = this.#clock.sleep(waitMs, AbortSignal.any([stop.signal, done])).then(
      () => {
        throw new Fault('timeout', `nobody connected within ${waitMs / 1000} s`)
      },
      () => {
        throw asError(stop.signal.reason)
      },
    )
    late.catch(() => {}) // The client came in time.
    return Promise.race([client.promise, late])
  }

  /** A right that is withdrawn ends what it allowed. */
  async #untilForbidden(mayStill: () => Promise<boolean>, stop: AbortController, done: AbortSignal): Promise<void> {
    try {
      do await this.#clock.sleep(this.#askAgainMs, done)
      while (await mayStill())
      stop.abort(new Fault('denied', 'the user may no longer look at it'))
    } catch (error) {
      if (!done.aborted) stop.abort(error)
    }
  }
}

async function served(client: Duplex, serve: (client: Duplex) => Promise<void>): Promise<void> {
  try {
    await serve(client)
    client.end()
  } catch (error) {
    client.destroy(asError(error))
    throw error
  }
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason))
}

function isSame(a: string, b: string): boolean {
  const [x, y] = [Buffer.from(a), Buffer.from(b)]
  return x.length === y.length && timingSafeEqual(x, y)
}
