/**
 * Copies a volume to another name: a disk, or a file. What has that name already is never replaced.
 *
 * A disk is copied with everything below it, so the copy stands on its own.
 */
import { Fault, invalid, isFault } from '#base/fault.ts'
import { asVolumeId, type VolumeId } from '#base/ids.ts'
import type { StorageService } from '#storage/service.ts'
import { type FileName, type ImageName, parseVolumeId } from '#storage/volume.ts'
import { operation } from '#tasks/operation.ts'
import { ifConfigured, markOf, withdrawPublished } from './aside.ts'

export type CopyVolume = {
  readonly volume: string
  readonly target: string
}

export interface CopyVolumeDeps {
  readonly storage: Pick<
    StorageService,
    | 'list'
    | 'describe'
    | 'location'
    | 'copy'
    | 'free'
    | 'stageFile'
    | 'publishFile'
    | 'withdrawFile'
    | 'discardStaged'
    | 'erase'
    | 'sweep'
  >
}

export const copyVolume = operation<CopyVolume, CopyVolumeDeps>('copyvolume', {
  upidType: 'imgcopy',
  id: ({ volume }) => parse(volume).storage,
  // Nobody starts a guest whose disk is read, or makes the disk that is written.
  locks: ({ volume, target }) => [lockOf(volume), lockOf(target)],
})
  .step('target', {
    async do({ params, deps }) {
      await deps.storage.describe(asVolumeId(params.volume))
      if (await isThere(deps.storage, asVolumeId(params.target))) {
        throw new Fault('conflict', `volume '${params.target}' already exists`)
      }
    },
  })
  .step('copy', {
    async do({ params, deps, log, progress, signal, task }) {
      const [source, target] = [asVolumeId(params.volume), parse(params.target)]
      const onProgress = (fraction: number) => progress('copy', fraction)
      log(`copying '${source}' to '${params.target}'`)
      if (target.name.kind === 'image') {
        const { vmid, base, format } = target.name
        const name = `${base}.${format}`
        await deps.storage.copy({ source, storage: target.storage, vmid, name, format, onProgress, signal })
        return {}
      }
      const { path } = await deps.storage.location(source)
      const { content, file } = target.name
      if (content === 'backup') throw notCopied(params.volume)
      const placement = { storage: target.storage, content, fileName: file, source: path, mark: markOf(task.upid) }
      return { identity: await deps.storage.stageFile({ ...placement, onProgress, signal }) }
    },
    async undo({ params, deps, task }) {
      const target = asVolumeId(params.target)
      const { storage, name } = parse(target)
      // `target` found that nobody had the name, and the lock has kept it so: what has it now is ours.
      const takeBack = async () => {
        if (name.kind === 'image') await deps.storage.free(target)
        else await deps.storage.discardStaged(target, markOf(task.upid))
      }
      await ifConfigured(deps.storage, storage, takeBack)
      // What a worker was writing when it was killed has no name yet.
      await deps.storage.sweep()
    },
  })
  .step('publish', {
    async do({ params, deps, done, log, task }) {
      if (done.copy.identity !== undefined) await deps.storage.publishFile(asVolumeId(params.target), markOf(task.upid))
      log(`volume '${params.target}' is complete`)
    },
    undo: ({ params, deps, done, task }) =>
      withdrawPublished(deps.storage, asVolumeId(params.target), task.upid, done.copy?.identity),
  })

/**
 * What the task will do, once everything that can be known now is known to be right.
 * @param target as `storage:name`, or a name in the same storage
 * @throws Fault `invalid` naming the field
 */
export function copyRequest(source: VolumeId, target: VolumeId): CopyVolume {
  const [from, to] = [parseVolumeId(source).name, parseVolumeId(target).name]
  if (!isCopied(from)) throw notCopied(source)
  const isSameKind = isCopied(to) && kindOf(from) === kindOf(to)
  if (!isSameKind) throw invalid({ target: `'${target}' is no name for a copy of '${source}'` })
  if (to.kind === 'image' && (to.parent || to.base.startsWith('base-'))) {
    throw invalid({ target: `'${target}' is the name of a template's disk: a copy is called vm-${to.vmid}-…` })
  }
  if (source === target) throw invalid({ target: `'${target}' is the volume itself` })
  return { volume: source, target }
}

function isCopied(name: { readonly kind: string }): name is ImageName | FileName {
  return name.kind === 'image' || name.kind === 'file'
}

function kindOf(name: ImageName | FileName): string {
  return name.kind === 'image' ? 'images' : name.content
}

function notCopied(volume: string): Fault {
  return invalid({ volume: `volume '${volume}' is neither a disk nor a file that can be copied` })
}

function lockOf(volume: string): string {
  const { name } = parse(volume)
  return name.kind === 'image' ? `guest/${name.vmid}` : `volume/${volume}`
}

function parse(volume: string): { storage: string; name: ImageName | FileName } {
  const { storage, name } = parseVolumeId(asVolumeId(volume))
  if (!isCopied(name)) throw notCopied(volume)
  return { storage, name }
}

async function isThere(storage: CopyVolumeDeps['storage'], volid: VolumeId): Promise<boolean> {
  try {
    await storage.describe(volid)
    return true
  } catch (cause) {
    if (isFault(cause, 'missing')) return false
    throw cause
  }
}
