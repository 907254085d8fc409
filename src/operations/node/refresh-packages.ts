/** Fetches the lists of packages anew. The lists apt has are replaced by apt only when the new ones are whole. */
import type { PackageSources } from '#cluster/package-sources.ts'
import type { Host } from '#host/host.ts'
import { refreshLists } from '#host/system/packages.ts'
import { operation } from '#tasks/operation.ts'

interface Deps {
  readonly host: Host
  readonly packageSources: Pick<PackageSources, 'root'>
}

export interface RefreshPackages {
  readonly quiet?: boolean | undefined
}

// No undo: newer lists are what is there to be known, however the task ends.
export const refreshPackages = operation<RefreshPackages, Deps>('aptupdate', { locks: () => ['apt'] }).step('lists', {
  async do({ params, deps, log, signal }) {
    const onLine = (line: string) => {
      if (line.trim() !== '' && (params.quiet !== true || /^[EW]:|^Err:/.test(line))) log(line)
    }
    await refreshLists(deps.host, deps.packageSources.root, { onLine, signal })
  },
})
