/**
 * A disk that becomes full under a writer, in terms of people: which storage, for what, how much.
 *
 * Room is asked for before anything is written, but it may go meanwhile, and how much a backup takes nobody
 * knows before. What a driver, a tool or the datastore then says is a path and the system's words.
 */
import { humanSize } from '#base/bytes.ts'
import { Fault, isFault } from '#base/fault.ts'
import { codeOf } from '#host/files.ts'

export interface Writing {
  readonly storage: string
  /** For the message, as `a disk of guest 100`. */
  readonly what: string
  /** How much it takes in all, where that is known. */
  readonly neededBytes?: number | undefined
  /** It may take less: data may be known already, and is compressed. */
  readonly isUpperBound?: boolean
  /** Asked when it is too late. */
  readonly availableBytes: () => Promise<number>
}

/** Does the work. @throws Fault `exhausted` naming the storage, and whatever else the work throws */
export async function namingFullStorage<T>(writing: Writing, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    if (!isFullDisk(cause)) throw cause
    const { storage, what, neededBytes, isUpperBound = false } = writing
    const needed = neededBytes === undefined ? '' : `${isUpperBound ? 'up to ' : ''}${humanSize(neededBytes)} needed, `
    const availableBytes = await writing.availableBytes()
    // There is room for all of it: the full disk is another one, of the node's state maybe, and the fault has its path.
    if (isFault(cause) && neededBytes !== undefined && availableBytes >= neededBytes) throw cause
    const available = `${humanSize(availableBytes)} available`
    throw new Fault('exhausted', `no space left on storage '${storage}' for ${what}: ${needed}${available}`, {
      cause,
      remedy: 'Free space there, or choose another storage.',
    })
  }
}

/** Our own words for it, the system's, and those of tools. A fault that says already whose disk it is is not meant. */
function isFullDisk(cause: unknown): boolean {
  if (!isFault(cause)) return codeOf(cause) === 'ENOSPC' || codeOf(cause) === 'EDQUOT'
  return /no space left/i.test(cause.message) && !/^no space left (on storage|for) /.test(cause.message)
}
