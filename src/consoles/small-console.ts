/** Two ends of a line, for tests: what one writes the other reads. */
import { Duplex } from 'node:stream'

export function lineWithTwoEnds(highWaterMark = 64 * 1024): [Duplex, Duplex] {
  const ends: [Duplex, Duplex] = [end(() => ends[1], highWaterMark), end(() => ends[0], highWaterMark)]
  return ends
}

function end(other: () => Duplex, highWaterMark: number): Duplex {
  const self = new Duplex({
    highWaterMark,
    read() {
      const done = pending.get(self)
      pending.delete(self)
      done?.()
    },
    write(part, _encoding, done) {
      if (other().destroyed) return done()
      if (other().push(part)) done()
      else pending.set(other(), done)
    },
    final(done) {
      if (!other().destroyed) other().push(null)
      done()
    },
  })
  self.once('close', () => {
    if (!other().destroyed && !other().readableEnded) other().push(null)
  })
  return self
}

/** Who waits until this end has read. */
const pending = new WeakMap<Duplex, () => void>()
