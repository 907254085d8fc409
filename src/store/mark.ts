/**
 * A mark: a few bytes that are others after every change of what a node knows, whichever of its processes made
 * it. Whoever keeps an answer keeps the mark he read before he asked, and reads it again before he gives the
 * answer once more. A mark says that something changed, never what.
 *
 * It is a file beside the store, because every process that writes there must touch it and one that may not
 * read the store must be able to compare it: the front holds it open for reading. Rejected: SQLite's own `-shm`
 * file, which changes with every commit too, but on which a reader could take locks that stop every writer.
 *
 * Touched after the commit and before anybody is told of it. A process killed in between leaves the old mark:
 * what is kept by it must not live long anyway (`rest/dispatch.ts`).
 */
import { closeSync, constants, fchmodSync, openSync, readSync, writeSync } from 'node:fs'

export interface Mark {
  /** To be called after every change, before the one who made it is told that it is done. */
  readonly touch: () => void
  /** Compare by `===` with what another process or handle read. */
  readonly read: () => string
}

export interface MarkFile extends Mark, Disposable {}

/** Pid, number of the change within the process, time since the machine started: no two changes have the same. */
const markBytes = 16

/** Opens the file, creating it (mode 0600). @throws Error of the file system */
export function openMark(path: string): MarkFile {
  const descriptor = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600)
  fchmodSync(descriptor, 0o600)
  const own = Buffer.alloc(markBytes)
  own.writeUInt32LE(process.pid, 0)
  let changes = 0
  return {
    touch() {
      changes = (changes + 1) >>> 0
      own.writeUInt32LE(changes, 4)
      own.writeBigUInt64LE(process.hrtime.bigint(), 8)
      try {
        writeSync(descriptor, own, 0, markBytes, 0)
      } catch {
        // The change is made and stays made; what is kept by the old mark does not live long.
      }
    },
    read: () => readMark(descriptor),
    [Symbol.dispose]: () => closeSync(descriptor),
  }
}

const read = Buffer.alloc(markBytes)

/** @param descriptor of the file, open for reading */
export function readMark(descriptor: number): string {
  return read.toString('latin1', 0, readSync(descriptor, read, 0, markBytes, 0))
}

/** For stores that live and end with their process. */
export function memoryMark(): Mark {
  let changes = 0
  return { touch: () => void (changes += 1), read: () => String(changes) }
}
