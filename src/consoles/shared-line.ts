/**
 * One line, several viewers: QEMU serves one client on each serial port, and people look together.
 *
 * Whoever types, types for all. What the guest prints goes to everybody, at once: a viewer who does not take it
 * misses some, and is told so. The rejected way, to wait for the slowest, would let anybody who looks at a guest
 * halt it, because a guest waits for its serial port.
 */
import { Duplex } from 'node:stream'
import { consoleLimits } from './limits.ts'

export class SharedLines {
  readonly #lines = new Map<string, Promise<SharedLine>>()

  /** Looks at the line of this name, connecting it for the first viewer. */
  async join(name: string, connect: () => Promise<Duplex>): Promise<Duplex> {
    const line = this.#lines.get(name) ?? this.#open(name, connect)
    return (await line).viewer()
  }

  #open(name: string, connect: () => Promise<Duplex>): Promise<SharedLine> {
    const forget = () => {
      if (this.#lines.get(name) === line) this.#lines.delete(name)
    }
    const line = connect().then((source) => new SharedLine(source, forget))
    this.#lines.set(name, line)
    line.catch(forget)
    return line
  }
}

class SharedLine {
  readonly #source: Duplex
  readonly #forget: () => void
  readonly #viewers = new Set<Viewer>()

  /** @param forget called when a new viewer must connect anew */
  constructor(source: Duplex, forget: () => void) {
    this.#source = source
    this.#forget = forget
    source.on('data', (part: Buffer) => {
      for (const viewer of this.#viewers) viewer.show(part)
    })
    source.on('error', () => source.destroy())
    source.once('end', () => source.destroy())
    source.once('close', () => {
      forget()
      for (const viewer of this.#viewers) viewer.push(null)
    })
  }

  viewer(): Duplex {
    const viewer = new Viewer(this.#source)
    this.#viewers.add(viewer)
    viewer.once('close', () => {
      this.#viewers.delete(viewer)
      if (this.#viewers.size > 0) return
      this.#forget()
      this.#source.destroy()
    })
    if (this.#source.destroyed) viewer.push(null)
    return viewer
  }
}

const gap = Buffer.from('\r\n[some output is missing here: it came faster than it was read]\r\n')

class Viewer extends Duplex {
  readonly #source: Duplex
  #isBehind = false
  #hasMissed = false

  constructor(source: Duplex) {
    super({ readableHighWaterMark: consoleLimits.unreadBytes })
    this.#source = source
  }

  show(part: Buffer): void {
    if (this.#isBehind) {
      this.#hasMissed = true
      return
    }
    if (this.#hasMissed) this.push(gap)
    this.#hasMissed = false
    this.#isBehind = !this.push(part)
  }

  override _read(): void {
    this.#isBehind = false
  }

  override _write(part: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (this.#source.destroyed) done()
    else this.#source.write(part, () => done())
  }
}
