/**
 * Takes over the backups of a storage whose datastore is of the first format, into an encrypted one that takes its place in
 * the end. The old one stays, in a folder beside it, for its owner to remove.
 *
 * Each backup is one act. Cut off anywhere, the next run goes on; what a process that died was writing is given back.
 */
import { requireAll } from '#backup/first-format/take-over.ts'
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
    const all = await deps.backup.takeOver(storage, { log, onProgress, signal })
    log(`${all.taken} backups taken over${all.before > 0 ? `, ${all.before} were there` : ''}, read again, and whole`)
    log(`what they came from is in '${all.from}', not encrypted: remove it once you need it no more`)
    requireAll(all)
  },
  undo: ({ params, deps, log }) => giveBackSpace(deps.backup, params.storage, log),
})
