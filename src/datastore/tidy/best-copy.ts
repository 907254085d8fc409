/**
 * Which copy of a chunk stays where several packs have it and the index is to name one.
 *
 * One in a pack of our own in which no damage was seen, without a look. A host that only adds may call anything by the name
 * of a chunk, and of what is damaged not everything is: such a copy stays only when it was read and is what it should be,
 * or when there is no better one.
 */
import { isFault } from '#base/fault.ts'
import type { OpenDatastore } from '../datastore.ts'
import { type ChunkKind, kindOf } from '../format.ts'
import type { SegmentEntry } from '../index/segment.ts'

type Reading = Pick<OpenDatastore, 'chunks' | 'index'>

export async function bestCopy({ chunks, index }: Reading, copies: readonly SegmentEntry[]): Promise<number> {
  const isWhole = async ({ id, flags, ...location }: SegmentEntry) => {
    return (await chunks.readRun([{ id, location: { ...location, flags } }], kindOf(flags) as ChunkKind)).length > 0
  }
  const tests = [
    async ({ pack }: SegmentEntry) => !index.isBad(pack) && !(await chunks.isInbox(pack)),
    async (copy: SegmentEntry) => !index.isBad(copy.pack) && (await isWhole(copy)),
    isWhole,
  ]
  for (const test of tests) {
    for (const [number, copy] of copies.entries()) if (await passes(() => test(copy))) return number
  }
  return 0
}

async function passes(test: () => Promise<boolean>): Promise<boolean> {
  try {
    return await test()
  } catch (fault) {
    if (!isFault(fault, 'damaged') && !isFault(fault, 'missing') && !isFault(fault, 'denied')) throw fault
    return false
  }
}
