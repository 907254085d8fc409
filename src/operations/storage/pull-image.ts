/**
 * Takes an image of a registry into a storage, as a template of containers. It arrives out of sight and then appears in
 * one act; a file that has the name already is never replaced.
 */
import { humanSize } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import type { VolumeId } from '#base/ids.ts'
import { reachOf } from '#host/web/reach.ts'
import { trusted } from '#host/web/trusted.ts'
import type { Settings } from '#settings.ts'
import { placedName } from '#storage/placing.ts'
import type { StorageService } from '#storage/service.ts'
import { volumeId } from '#storage/volume.ts'
import { operation } from '#tasks/operation.ts'
import { discardStaging, ifConfigured, markOf, pathOf, withdrawPublished } from './aside.ts'

export type PullImage = {
  readonly storage: string
  readonly reference: string
  readonly fileName: string
}

export interface PullImageDeps {
  readonly settings: Pick<Settings, 'fetchNetworks' | 'runDir' | 'uidBase' | 'caFile'>
  readonly storage: Pick<
    StorageService,
    | 'list'
    | 'location'
    | 'requireContent'
    | 'stageOciPull'
    | 'publishFile'
    | 'withdrawFile'
    | 'discardStaged'
    | 'erase'
    | 'sweep'
  >
}

/** Most lines of what the tool says that are kept: a registry says how many there are. */
const mostLines = 200

/** How this node asks a registry: as nobody, and only where it asks the web for others. */
export async function registryAccess({ fetchNetworks, runDir, uidBase, caFile }: PullImageDeps['settings']) {
  // The front has the number below the guests', screens of terminals the one below that, this the next.
  return { uid: uidBase - 3, runDir, reach: reachOf(fetchNetworks), trusted: await trusted(caFile) }
}

export const pullOciImage = operation<PullImage, PullImageDeps>('ociregistrypull', {
  id: ({ storage }) => storage,
  locks: (params) => [`volume/${volumeOf(params)}`],
})
  .step('target', {
    async do({ params, deps }) {
      await deps.storage.requireContent(params.storage, 'vztmpl')
      const path = await pathOf(deps.storage, volumeOf(params))
      if (path !== undefined) throw new Fault('conflict', `refusing to override existing file '${path}'`)
    },
    // Nothing was replaced; what `publish` may have kept of the name goes.
    undo: ({ params, deps, task }) =>
      ifConfigured(deps.storage, params.storage, () => deps.storage.erase(volumeOf(params), markOf(task.upid))),
    always: true,
  })
  .step('pull', {
    async do({ params, deps, log, progress, signal, task }) {
      const { storage, reference, fileName } = params
      log(`pulling ${reference} to ${volumeOf(params)}`)
      let [lines, received] = [0, 0]
      const identity = await deps.storage.stageOciPull({
        ...(await registryAccess(deps.settings)),
        storage,
        reference,
        fileName,
        signal,
        mark: markOf(task.upid),
        onLine: (line) => {
          if (line !== '' && (lines += 1) <= mostLines) log(line)
        },
        onProgress: (bytes) => {
          received = bytes
          progress('pull')
        },
      })
      if (received > 0) log(`more than ${humanSize(received)} received`)
      return { identity }
    },
    undo: ({ params, deps, task }) => discardStaging(deps.storage, volumeOf(params), task.upid),
  })
  .step('publish', {
    async do({ params, deps, log, task }) {
      await deps.storage.publishFile(volumeOf(params), markOf(task.upid))
      log(`pull of '${params.reference}' to '${volumeOf(params)}' finished`)
    },
    undo: ({ params, deps, done, task }) =>
      withdrawPublished(deps.storage, volumeOf(params), task.upid, done.pull?.identity),
  })

function volumeOf({ storage, fileName }: Pick<PullImage, 'storage' | 'fileName'>): VolumeId {
  return volumeId(storage, placedName('vztmpl', fileName))
}

/** What the task will do: `team/web:1.2` becomes `web_1.2.tar` unless a name is given. @throws Fault `invalid`, `conflict` */
export async function pullRequest(
  storages: Pick<StorageService, 'requireContent'>,
  { storage, reference, filename }: { storage: string; reference: string; filename?: string | undefined },
): Promise<PullImage> {
  const wanted = filename ?? (reference.split('/').at(-1) ?? '').replace(':', '_')
  const { file: fileName } = placedName('vztmpl', wanted.endsWith('.tar') ? wanted : `${wanted}.tar`)
  await storages.requireContent(storage, 'vztmpl')
  return { storage, reference, fileName }
}
