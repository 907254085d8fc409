/**
 * Who called what: one line of JSON for each call that was answered, beside the state of the node.
 *
 * A reply that was given again without asking (`http/kept-replies.ts`) leaves one line for all its `times` in a second.
 * Lines are written together, a second late at most, so that a call does not wait for the disk; a log that
 * cannot be written costs lines, never a call. Queries and bodies are left out, because secrets travel there.
 */
import { appendFile, rename, stat } from 'node:fs/promises'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import type { Answered } from '#rest/dispatch.ts'

export interface AccessLogDeps {
  readonly path: string
  readonly clock: Clock
  readonly log: Log
}

/** In the state directory of the node. */
export const accessLogName = 'access.log'

/** One kept file and the one being written. */
const fileBytesMaximum = 32 << 20
/** What one second of calls may hold before the rest of it is only counted. */
const waitingBytesMaximum = 4 << 20
const pathMaximum = 512
const writeEveryMs = 1000

export class AccessLog implements AsyncDisposable {
  readonly #deps: AccessLogDeps
  #waiting: string[] = []
  #waitingBytes = 0
  #lost = 0
  #sizeBytes: number | undefined
  #writing: Promise<void> = Promise.resolve()
  #isPlanned = false

  constructor(deps: AccessLogDeps) {
    this.#deps = deps
  }

  /** To be told of each call when it begins; what it returns, when it was answered. */
  readonly observe = (): ((answered: Answered) => void) => {
    const { clock } = this.#deps
    const startedMs = clock.monotonic()
    return ({ method, path, endpoint, status, who, remoteAddress, times }) => {
      this.#add({
        time: new Date(clock.now()).toISOString(),
        ...(remoteAddress === '' ? {} : { from: remoteAddress }),
        ...(who === undefined ? {} : { user: who.authId }),
        method,
        path: path.slice(0, pathMaximum),
        ...(endpoint === undefined ? {} : { endpoint }),
        status,
        ms: Math.round((clock.monotonic() - startedMs) * 10) / 10,
        ...(times === undefined ? {} : { times }),
      })
    }
  }

  #add(entry: object): void {
    const line = `${JSON.stringify(entry)}\n`
    if (this.#waitingBytes + line.length > waitingBytesMaximum) this.#lost += 1
    else {
      this.#waiting.push(line)
      this.#waitingBytes += line.length
    }
    if (this.#isPlanned) return
    this.#isPlanned = true
    void this.#deps.clock.sleep(writeEveryMs).then(() => this.flush())
  }

  /** Writes what waits. */
  flush(): Promise<void> {
    this.#isPlanned = false
    this.#writing = this.#writing.then(() => this.#write())
    return this.#writing
  }

  async #write(): Promise<void> {
    const { path, log } = this.#deps
    const text = this.#waiting.join('')
    const lost = this.#lost
    this.#waiting = []
    this.#waitingBytes = 0
    this.#lost = 0
    if (text === '') return
    try {
      await this.#rotate(path)
      await appendFile(path, text, { mode: 0o600 })
      this.#sizeBytes = (this.#sizeBytes ?? 0) + Buffer.byteLength(text)
      if (lost > 0) log.warn('calls were not written to the access log: too many at once', { lost })
    } catch (error) {
      this.#sizeBytes = undefined
      log.warn('the access log cannot be written', { path, error })
    }
  }

  async #rotate(path: string): Promise<void> {
    this.#sizeBytes ??= await stat(path).then(
      ({ size }) => size,
      () => 0,
    )
    if (this.#sizeBytes < fileBytesMaximum) return
    await rename(path, `${path}.1`)
    this.#sizeBytes = 0
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.flush()
  }
}
