/**
 * Keeps the front running: starts it without privileges, hands it the TLS key through a pipe, starts it
 * again when it dies.
 *
 * It gets a uid nobody else has, no groups, no capabilities, and no way to gain any. Its input stays open
 * as long as the daemon lives; it ends with it.
 */
import { getCompileCacheDir } from 'node:module'
import { dirname, join } from 'node:path'
import { type Clock, systemClock } from '#base/clock.ts'
import { Fault, messageOf } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { nodeFlags } from '#base/node-flags.ts'
import { type Companion, startCompanion } from '#host/programs/companion.ts'
import type { Argv } from '#host/host.ts'
import { isFaultKind } from '#rest/reply.ts'
import { bounds } from './bounds.ts'
import type { FrontConfig, FrontMessage, FrontRenewal, SpiceAt } from './wire.ts'

export interface FrontProcessOptions {
  readonly config: FrontConfig
  /** The store's mark, open for reading only. Without it the front keeps no reply. */
  readonly markDescriptor?: number
  /** The front's own uid and gid. */
  readonly uid: number
  readonly log: Log
  readonly clock?: Clock
  /** Default: the entry beside this folder. */
  readonly entry?: string
}

export interface FrontProcess extends AsyncDisposable {
  readonly port: number
  /** Of the one running now. */
  readonly pid: () => number | undefined
  /** Where the one running now serves viewers by SPICE; absent: nowhere, as was wished. */
  readonly spice: () => SpiceAt | undefined
  /**
   * New connections get this certificate, also after a restart of the front; open ones go on.
   * @throws Fault `invalid` when it cannot be served, `timeout`
   */
  readonly renew: (renewal: FrontRenewal) => Promise<void>
}

/**
 * Resolves when the front listens.
 * @throws Fault the front's own (port in use), or `failed` when it does not come up
 */
export async function startFrontProcess(options: FrontProcessOptions): Promise<FrontProcess> {
  const { clock = systemClock, log } = options
  const stopping = new AbortController()
  let current = await startOnce(options, clock)
  const { port } = current
  // The port chosen the first time is kept: clients know it by now.
  let config = withPorts(options.config, current)
  const keeping = keep(async () => {
    const startedMs = clock.monotonic()
    await current.companion.ended
    if (stopping.signal.aborted) return undefined
    log.warn('the front has ended and is started again', { pid: current.companion.pid })
    return clock.monotonic() - startedMs
  })

  async function keep(ended: () => Promise<number | undefined>): Promise<void> {
    let pauseMs: number = bounds.restartFirstMs
    for (let livedMs = await ended(); livedMs !== undefined; livedMs = await ended()) {
      pauseMs = livedMs > bounds.healthyAfterMs ? bounds.restartFirstMs : pauseMs
      pauseMs = await restart(pauseMs)
    }
  }

  async function restart(firstPauseMs: number): Promise<number> {
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, bounds.restartLongestMs)) {
      await clock.sleep(pauseMs, stopping.signal)
      try {
        const used = config
        current = await startOnce({ ...options, config: used }, clock)
        if (stopping.signal.aborted) await stop(current.companion, clock)
        else if (used !== config) await renewAt(current, config, clock)
        return Math.min(pauseMs * 2, bounds.restartLongestMs)
      } catch (error) {
        log.error('the front cannot be started', { error })
      }
    }
  }

  return {
    port,
    pid: () => current.companion.pid,
    spice: () => current.spice,
    async renew({ key, certificate }) {
      const before = config
      // First, so that a front which dies meanwhile comes back with it.
      config = { ...config, key, certificate }
      try {
        await renewAt(current, config, clock)
      } catch (error) {
        config = before
        throw error
      }
    },
    async [Symbol.asyncDispose]() {
      stopping.abort()
      await stop(current.companion, clock)
      await keeping.catch(() => {}) // It was interrupted in a pause; that is what was wanted.
    },
  }
}

/** Ports chosen the first time. */
function withPorts(config: FrontConfig, { port, spice }: Running): FrontConfig {
  return { ...config, port, ...(spice && 'port' in spice ? { spicePort: spice.port } : {}) }
}

interface Running {
  readonly companion: Companion
  readonly port: number
  readonly spice?: SpiceAt | undefined
  /** The front's next message. */
  readonly next: () => Promise<FrontMessage>
}

/** One that has ended is started again with what is wanted by then. */
async function renewAt({ companion, next }: Running, config: FrontRenewal, clock: Clock): Promise<void> {
  const answer = next()
  const { key, certificate } = config
  companion.give(`${JSON.stringify({ key, certificate } satisfies FrontRenewal)}\n`)
  const first = await firstOf(answer, companion, clock)
  if (first === 'silent') throw new Fault('timeout', 'the front did not take the certificate in time')
  if (typeof first === 'object' && 'fault' in first) throw faultFrom(first)
}

async function firstOf(
  message: Promise<FrontMessage>,
  { ended }: Companion,
  clock: Clock,
): Promise<FrontMessage | 'ended' | 'silent'> {
  const done = new AbortController()
  const silence = clock.sleep(bounds.frontStartMs, done.signal).then(
    () => 'silent' as const,
    () => 'silent' as const,
  )
  const first = await Promise.race([message, ended.then(() => 'ended' as const), silence])
  done.abort()
  return first
}

async function startOnce(options: FrontProcessOptions, clock: Clock): Promise<Running> {
  const { log, markDescriptor } = options
  const config = { ...options.config, hasMark: markDescriptor !== undefined }
  // Messages answer in the order they were asked for.
  const waiting: ((message: FrontMessage) => void)[] = []
  const next = () => new Promise<FrontMessage>((resolve) => waiting.push(resolve))
  const spoke = next()
  const companion = await startCompanion(commandOf(options), {
    onLine: (line) => {
      const message = readMessage(line)
      if (message) waiting.shift()?.(message)
    },
    onErrorLine: (line) => log.info('front', { line }),
    env: compiledCode(),
    ...(markDescriptor === undefined ? {} : { files: [markDescriptor] }),
  })
  companion.give(`${JSON.stringify(config)}\n`)
  const first = await firstOf(spoke, companion, clock)
  if (typeof first === 'object' && 'ready' in first) return { companion, ...first.ready, next }
  await stop(companion, clock)
  if (typeof first === 'object') throw faultFrom(first)
  throw new Fault(
    'failed',
    first === 'ended' ? 'the front ended before it listened' : 'the front did not come up in time',
    {
      remedy: 'Its last words are in the log of the daemon. It must be able to read the program and Node.',
    },
  )
}

/**
 * It begins as root with the three capabilities it needs to read its own program, wherever that was checked
 * out, and to become somebody else; becoming somebody else takes them away (`front.ts`, before it reads a
 * byte). `--no-new-privs` sees to it that there is no way back.
 */
function commandOf({ uid, entry }: FrontProcessOptions): Argv {
  const kept = ['--bounding-set=-all,+setuid,+setgid,+dac_read_search', '--inh-caps=-all', '--ambient-caps=-all']
  const program = entry ?? join(import.meta.dirname, '..', 'front.ts')
  const node = [process.execPath, ...nodeFlags, program, String(uid)]
  return ['setpriv', '--clear-groups', '--no-new-privs', ...kept, ...node]
}

/** Where this process finds what Node compiled, the front does too, while it is still root; it cannot write there. */
function compiledCode(): Record<string, string> {
  const directory = getCompileCacheDir()
  // Node adds a folder of its version to the directory it was told.
  return directory === undefined ? {} : { NODE_COMPILE_CACHE: dirname(directory) }
}

function readMessage(line: string): FrontMessage | undefined {
  try {
    const message: unknown = JSON.parse(line)
    const isObject = typeof message === 'object' && message !== null
    const isMessage = isObject && ['ready', 'renewed', 'fault'].some((word) => word in message)
    return isMessage ? (message as FrontMessage) : undefined
  } catch (cause) {
    throw new Error(`the front said something else than a message: ${messageOf(cause)}`, { cause })
  }
}

function faultFrom(message: FrontMessage): Fault {
  if (!('fault' in message)) return new Fault('failed', 'the front said it is ready and ended')
  const { kind, message: text, remedy } = message.fault
  return new Fault(isFaultKind(kind) ? kind : 'failed', text, remedy === undefined ? {} : { remedy })
}

async function stop(companion: Companion, clock: Clock): Promise<void> {
  companion.kill('SIGTERM')
  const done = new AbortController()
  clock.sleep(bounds.frontStopMs, done.signal).then(
    () => companion.kill('SIGKILL'),
    () => {}, // It ended by itself.
  )
  await companion.ended
  done.abort()
}
