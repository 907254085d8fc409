/**
 * Gives back the space of a storage's datastore that no backup needs, beside whoever writes and reads there. What somebody
 * may still rely on waits for a later run.
 *
 * Has nothing to undo: cut off anywhere, the next run goes on.
 */
import { humanSize } from '#base/bytes.ts'
import { seconds } from '#base/clock.ts'
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
    const { chunks, liveChunks, condemnedChunks, removedChunks, removedPacks, rewrittenPacks, freedBytes, waitsFor } =
      await deps.backup.collect(storage, {
        signal,
        onProgress: marksTo(progress),
      })
    const took = (deps.clock.monotonic() - startedMs) / 1000
    const ended = seconds(deps.clock)
    await deps.datastoreJobs.collected(storage, { ended, seconds: took, freedBytes, condemnedChunks })
    log(`storage '${storage}': ${liveChunks} of ${chunks} chunks are needed; ${removedChunks} are removed`)
    log(
      `${removedPacks} packs removed, ${rewrittenPacks} written anew, ${humanSize(Math.max(0, freedBytes))} given back`,
    )
    if (waitsFor !== undefined) log(`the rest waits for ${waitsFor}`)
  },
})
