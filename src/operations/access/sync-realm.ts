/** Synchronizes users and groups of a realm with its directory, or says what that would do. */
import type { RealmService } from '#access/realm-service.ts'
import type { SyncWish } from '#access/realm-sync.ts'
import { operation } from '#tasks/operation.ts'

export interface SyncRealm extends SyncWish {
  readonly realm: string
}

interface Deps {
  readonly realms: Pick<RealmService, 'sync'>
}

// One step without undo: the directory is read first, and all that follows from it is written at once.
const sync = (name: string, isDry: boolean) =>
  operation<SyncRealm, Deps>(name, {
    id: ({ realm }) => realm,
    locks: ({ realm }) => (isDry ? [] : [`realm/${realm}`]),
  }).step('sync', {
    async do({ params: { realm, ...wish }, deps, log, warn, signal }) {
      const { lines, warnings } = await deps.realms.sync(realm, { wish, isDry, signal })
      for (const line of lines) log(line)
      for (const warning of warnings) warn(warning)
      if (lines.length === 0) log('users and groups are as the directory says')
      if (isDry) log('nothing was changed')
    },
  })

export const syncRealm = sync('auth-realm-sync', false)
export const testRealmSync = sync('auth-realm-sync-test', true)
