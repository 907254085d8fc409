/**
 * Takes over the backups of a storage whose datastore is of the first format, into an encrypted one in its place. The old
 * one stays, in a folder beside it, for its owner to remove.
 *
 * Each backup is one act. Cut off anywhere, the next run goes on; what a process that died was writing is given back.
 */
import type { Services } from '#services.ts'
import { operation } from '#tasks/operation.ts'
import { giveBackSpace } from './give-back.ts'

export type TakeOverBackups = { readonly storage: string }

export const takeOverBackups = operation<TakeOverBackups, Pick<Services, 'backup'>>('hakotakeover', {
  id: ({ storage }) => storage,
  locks: ({ storage }) => [`take-over/${storage}`],
}).step('backups', {
  async do({ params: { storage }, deps, log, progress, signal }) {
    const onProgress = (fraction: number) => progress('take over', fraction)
    const { taken, before, from } = await deps.backup.takeOver(storage, { log, onProgress, signal })
    log(`${taken} backups taken over${before > 0 ? `, ${before} were there` : ''}, read again, and whole`)
    log(`what they came from is in '${from}', not encrypted: remove it once you need it no more`)
  },
  undo: ({ params, deps, log }) => giveBackSpace(deps.backup, params.storage, log),
})
