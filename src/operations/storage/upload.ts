/**
 * Puts an uploaded file into a storage. It is moved there, or copied, and checked out of sight, and then appears in one
 * act, replacing a file of that name, which is destroyed only once the task has succeeded. The spooled
 * upload goes either way.
 */
import { rm } from 'node:fs/promises'
import type { Settings } from '#settings.ts'
import { placedName, placedVolume } from '#storage/placing.ts'
import type { StorageService } from '#storage/service.ts'
import { type Checksum, requireChecksumShape } from '#storage/transfer.ts'
import type { FileContent } from '#storage/volume.ts'
import { operation } from '#tasks/operation.ts'
import { spooledUpload } from '../spooled-upload.ts'
import { discardStaging, ifConfigured, markOf, withdrawPublished } from './aside.ts'

export type UploadFile = {
  readonly storage: string
  readonly content: FileContent
  readonly fileName: string
  /** Absolute path of the spooled upload; removed at the end. */
  readonly spooled: string
  readonly checksum?: { readonly algorithm: Checksum['algorithm']; readonly value: string }
}

export interface UploadFileDeps {
  readonly storage: Pick<
    StorageService,
    'list' | 'stageFile' | 'publishFile' | 'withdrawFile' | 'discardStaged' | 'erase' | 'sweep'
  >
}

export const uploadFile = operation<UploadFile, UploadFileDeps>('imgcopy', {
  id: ({ storage }) => storage,
  locks: (params) => [`volume/${placedVolume(params)}`],
})
  .step('spool', {
    do: ({ params, log }) => log(`starting file import from: ${params.fileName}`),
    async undo({ params, deps, task }) {
      await rm(params.spooled, { force: true })
      // The file that was replaced; after a failure it has its name again and there is nothing to erase.
      await ifConfigured(deps.storage, params.storage, () =>
        deps.storage.erase(placedVolume(params), markOf(task.upid)),
      )
    },
    always: true,
  })
  .step('copy', {
    async do({ params, deps, log, progress, signal, task }) {
      const { storage, content, fileName, spooled, checksum } = params
      const onProgress = (fraction: number) => progress('copy', fraction)
      const file = { storage, content, fileName, source: spooled, mayMove: true, checksum, mark: markOf(task.upid) }
      const identity = await deps.storage.stageFile({ ...file, onProgress, signal })
      if (checksum) log(`checksum verified (${checksum.algorithm})`)
      return { identity }
    },
    undo: ({ params, deps, task }) => discardStaging(deps.storage, placedVolume(params), task.upid),
  })
  .step('publish', {
    async do({ params, deps, log, task }) {
      await deps.storage.publishFile(placedVolume(params), markOf(task.upid))
      log(`target volume: ${placedVolume(params)}`)
      log('finished file import successfully')
    },
    undo: ({ params, deps, done, task }) =>
      withdrawPublished(deps.storage, placedVolume(params), task.upid, done.copy?.identity),
  })

export interface UploadParams {
  readonly storage: string
  readonly content: FileContent
  readonly filename: string
  readonly tmpfilename?: string | undefined
  readonly checksum?: string | undefined
  readonly 'checksum-algorithm'?: Checksum['algorithm'] | undefined
}

export interface UploadChecks {
  readonly settings: Pick<Settings, 'stateDir'>
  readonly storage: Pick<StorageService, 'requireContent'>
}

/**
 * What the task will do, once everything that can be known now is known to be right. The spooled file is
 * removed when it is not.
 * @throws Fault `invalid` naming the field
 */
export async function uploadRequest(checks: UploadChecks, params: UploadParams): Promise<UploadFile> {
  const { storage, content, filename, checksum: value, 'checksum-algorithm': algorithm } = params
  const spooled = spooledUpload(checks.settings, params.tmpfilename)
  try {
    const { file } = placedName(content, filename)
    const checksum = algorithm !== undefined && value !== undefined ? { algorithm, value } : undefined
    if (checksum) requireChecksumShape(checksum)
    await checks.storage.requireContent(storage, content)
    return { storage, content, fileName: file, spooled, ...(checksum ? { checksum } : {}) }
  } catch (error) {
    await rm(spooled, { force: true })
    throw error
  }
}
