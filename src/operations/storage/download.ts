/**
 * Takes a file from a web server into a storage. It arrives out of sight and then appears in one act; a file that has
 * the name already is never replaced. With a checksum that file may be the very one that is wanted: then the task is
 * done without asking anybody.
 *
 * A URL may hold a password or a signature; then the whole of it is a secret, and the rest is what is told of it.
 */
import { humanSize } from '#base/bytes.ts'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { reachOf } from '#host/web/reach.ts'
import { webUrl, withoutSecrets } from '#host/web/web.ts'
import type { Settings } from '#settings.ts'
import type { Compression } from '#storage/download.ts'
import { placedName, placedVolume } from '#storage/placing.ts'
import type { StorageService } from '#storage/service.ts'
import { type Checksum, checksumOf, requireChecksumShape } from '#storage/transfer.ts'
import type { FileContent } from '#storage/volume.ts'
import { operation } from '#tasks/operation.ts'
import { discardStaging, ifConfigured, markOf, pathOf, withdrawPublished } from './aside.ts'

export type DownloadFile = {
  readonly storage: string
  readonly content: FileContent
  readonly fileName: string
  /** Without user, password and query. */
  readonly from: string
  /** The whole of it, where that is more. */
  readonly url?: string | undefined
  readonly checksum?: { readonly algorithm: Checksum['algorithm']; readonly value: string }
  readonly compression?: Compression | undefined
  readonly verifyCertificates?: boolean | undefined
}

export interface DownloadFileDeps {
  readonly settings: Pick<Settings, 'fetchNetworks'>
  readonly clock: Pick<Clock, 'monotonic'>
  readonly storage: Pick<
    StorageService,
    | 'list'
    | 'describe'
    | 'location'
    | 'requireContent'
    | 'stageDownload'
    | 'publishFile'
    | 'withdrawFile'
    | 'discardStaged'
    | 'erase'
    | 'sweep'
  >
}

export const downloadFile = operation<DownloadFile, DownloadFileDeps>('download', {
  id: ({ storage }) => storage,
  locks: (params) => [`volume/${placedVolume(params)}`],
  secrets: ['url'],
})
  .step('target', {
    async do({ params, deps, log, signal }) {
      await deps.storage.requireContent(params.storage, params.content)
      const path = await pathOf(deps.storage, placedVolume(params))
      if (path === undefined) return { isThere: false }
      const { checksum } = params
      if (checksum === undefined) throw new Fault('conflict', `refusing to override existing file '${path}'`)
      log('calculating checksum of existing file...')
      const found = await checksumOf(path, checksum.algorithm, signal)
      if (found !== checksum.value.toLowerCase()) {
        throw new Fault('conflict', `refusing to override existing file '${path}'`, {
          remedy: `Its ${checksum.algorithm} is ${found}: delete it first, or choose another name.`,
        })
      }
      log('OK, got correct file already, no need to download')
      return { isThere: true }
    },
    // Nothing was replaced; what `publish` may have kept of the name goes.
    undo: ({ params, deps, task }) =>
      ifConfigured(deps.storage, params.storage, () => deps.storage.erase(placedVolume(params), markOf(task.upid))),
    always: true,
  })
  .step('download', {
    async do({ params, deps, done, log, progress, signal, task }) {
      if (done.target.isThere) return {}
      const { storage, content, fileName, from: shown, url = shown, checksum, compression, verifyCertificates } = params
      log(`downloading ${shown} to ${placedVolume(params)}`)
      const telling = teller(deps.clock, log)
      const identity = await deps.storage.stageDownload({
        storage,
        content,
        fileName,
        url,
        checksum,
        compression,
        verifyCertificates,
        signal,
        mark: markOf(task.upid),
        reach: reachOf(deps.settings.fetchNetworks),
        onAnswer: (from, sizeBytes) => {
          const where = withoutSecrets(from) === shown ? '' : ` from ${withoutSecrets(from)}`
          log(`receiving ${sizeBytes === undefined ? 'a file of unknown size' : humanSize(sizeBytes)}${where}`)
        },
        onProgress: (doneBytes, sizeBytes) => {
          progress('download', sizeBytes === undefined ? undefined : doneBytes / Math.max(1, sizeBytes))
          telling.tell(doneBytes, sizeBytes)
        },
      })
      telling.end()
      if (checksum) log(`OK, checksum verified (${checksum.algorithm})`)
      return { identity }
    },
    undo: ({ params, deps, task }) => discardStaging(deps.storage, placedVolume(params), task.upid),
  })
  .step('publish', {
    async do({ params, deps, done, log, task }) {
      if (done.target.isThere) return
      await deps.storage.publishFile(placedVolume(params), markOf(task.upid))
      log(`download of '${params.from}' to '${placedVolume(params)}' finished`)
    },
    undo: ({ params, deps, done, task }) =>
      withdrawPublished(deps.storage, placedVolume(params), task.upid, done.download?.identity),
  })

/** A line at every tenth of the file, and at least two seconds after the one before; without a size, by time alone. */
function teller(clock: Pick<Clock, 'monotonic'>, log: (line: string) => void) {
  const startMs = clock.monotonic()
  let [told, toldMs, done] = [0, startMs, 0]
  const rate = () => `${humanSize(Math.round((done * 1000) / Math.max(1, clock.monotonic() - startMs)))}/s`
  return {
    tell(doneBytes: number, sizeBytes: number | undefined) {
      done = doneBytes
      const now = clock.monotonic()
      const tenth = sizeBytes === undefined ? told + 1 : Math.floor((doneBytes * 10) / Math.max(1, sizeBytes))
      if (tenth <= told || tenth >= 10 || now - toldMs < (sizeBytes === undefined ? 10_000 : 2_000)) return
      ;[told, toldMs] = [tenth, now]
      log(`${humanSize(done)}${sizeBytes === undefined ? '' : ` (${tenth * 10}%)`} received, ${rate()}`)
    },
    end: () => log(`${humanSize(done)} received, ${rate()}`),
  }
}

export interface DownloadParams {
  readonly storage: string
  readonly content: FileContent
  readonly filename: string
  readonly url: string
  readonly checksum?: string | undefined
  readonly 'checksum-algorithm'?: Checksum['algorithm'] | undefined
  readonly compression?: Compression | undefined
  readonly 'verify-certificates'?: boolean | undefined
}

/** What the task will do, once everything that can be known now is known to be right. @throws Fault `invalid` naming the field */
export async function downloadRequest(
  storages: Pick<StorageService, 'requireContent'>,
  params: DownloadParams,
): Promise<DownloadFile> {
  const { storage, content, filename, url, compression, checksum: value, 'checksum-algorithm': algorithm } = params
  const { file } = placedName(content, filename)
  if (compression !== undefined && content === 'vztmpl') {
    throw new Fault('invalid', 'Parameter verification failed.', {
      fields: { compression: 'a container template is kept as it is compressed' },
    })
  }
  const checksum = algorithm !== undefined && value !== undefined ? { algorithm, value } : undefined
  if (checksum) requireChecksumShape(checksum)
  await storages.requireContent(storage, content)
  const from = withoutSecrets(webUrl(url))
  return {
    storage,
    content,
    fileName: file,
    from,
    ...(from === url ? {} : { url }),
    ...(checksum ? { checksum } : {}),
    compression,
    verifyCertificates: params['verify-certificates'],
  }
}
