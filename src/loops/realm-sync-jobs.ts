/** Runs jobs that synchronize realms when they are due. */
import { syncRealm } from '#operations/access/sync-realm.ts'
import type { NodeServices } from '#services.ts'
import type { Json } from '#store/store.ts'
import { type DueDeps, type JobKind, keepRunning, runDue } from './due-jobs.ts'

export type SyncJobDeps = DueDeps & Pick<NodeServices, 'realmSyncJobs'>

export function runRealmSyncJobs(deps: SyncJobDeps, signal: AbortSignal): void {
  keepRunning(deps, kindOf(deps), signal)
}

/** Starts what is due now; returns the tasks. */
export async function runDueSyncs(deps: SyncJobDeps): Promise<string[]> {
  return runDue(deps, kindOf(deps))
}

const asked = ['realm', 'scope', 'enable-new', 'remove-vanished']

function kindOf({ tasks, realmSyncJobs: jobs }: SyncJobDeps): JobKind {
  return {
    noun: 'realm-sync',
    jobs,
    start({ options }) {
      const wish = Object.fromEntries(Object.entries(options).filter(([name]) => asked.includes(name)))
      const params: Json = JSON.parse(JSON.stringify(wish))
      return tasks.start({ operation: syncRealm.name, params, user: 'root@pam' })
    },
  }
}
