/**
 * Gives back the space of a storage's datastore that no backup needs, beside whoever writes and reads there. What somebody
 * may still rely on waits for a later run.
 *
 * Has nothing to undo: cut off anywhere, the next run goes on.
 */
import { humanSize } from '#base/bytes.ts'
import { seconds } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import type { CollectedOutcome } from '#cluster/datastore-jobs.ts'
import type { Services } from '#services.ts'
import { operation } from '#tasks/operation.ts'
import { marksTo } from './give-back.ts'

export type CollectGarbage = { readonly storage: string }

export const collectSpace = operation<CollectGarbage, Pick<Services, 'backup' | 'clock' | 'datastoreJobs'>>(
  'hakocollect',
  {
    id: ({ storage }) => storage,
  },
).step('collect', {
  async do({ params: { storage }, deps, log, progress, signal }) {
    const startedMs = deps.clock.monotonic()
    const cameTo = (outcome: Omit<CollectedOutcome, 'ended' | 'seconds'>) => {
      const took = (deps.clock.monotonic() - startedMs) / 1000
      return deps.datastoreJobs.collected(storage, { ended: seconds(deps.clock), seconds: took, ...outcome })
    }
    const { chunks, liveChunks, condemnedChunks, removedChunks, removedPacks, rewrittenPacks, freedBytes, waitsFor } =
      await deps.backup.collect(storage, { signal, onProgress: marksTo(progress) }).catch(async (fault: unknown) => {
        // Somebody else does it, or it is to be done later.
        const isDone = !isFault(fault, 'conflict') && !isFault(fault, 'aborted')
        if (isDone) await cameTo({ isGood: false, freedBytes: 0, condemnedChunks: 0 })
        throw fault
      })
    await cameTo({ isGood: true, freedBytes, condemnedChunks })
    log(`storage '${storage}': ${liveChunks} of ${chunks} chunks are needed; ${removedChunks} are removed`)
    log(
      `${removedPacks} packs removed, ${rewrittenPacks} written anew, ${humanSize(Math.max(0, freedBytes))} given back`,
    )
    if (waitsFor !== undefined) log(`the rest waits for ${waitsFor}`)
  },
})
