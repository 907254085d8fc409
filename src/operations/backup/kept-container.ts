/** A container as it is kept in a backup: what it was configured as, and its trees, to be put into new volumes. */
import { humanSize } from '#base/bytes.ts'
import { invalid } from '#base/fault.ts'
import { asVolumeId } from '#base/ids.ts'
import type { BackupReader } from '#datastore/restore/reader.ts'
import { restoreTree } from '#datastore/tree/restore.ts'
import type { Options } from '#guests/config.ts'
import { idsOnDisk } from '#guests/lxc/mount-ids.ts'
import { mountOf } from '#guests/lxc/mountpoint.ts'
import type { Services } from '#services.ts'
import { isForeignArchive, isOfContainer } from './archive-file.ts'
import { storedOptions } from './guest-conf.ts'
import { type ArchiveTelling, openKeptArchive } from './kept-archive.ts'

export interface FillTrees {
  /** Of the new container: whose ids its files get. */
  readonly options: Options
  /** Shows the volumes to be filled for as long as `act` takes: by the names of their mounts, each an empty folder. */
  readonly inPlaces: <T>(act: (places: Readonly<Record<string, string>>) => Promise<T>) => Promise<T>
  /** The same volumes as one tree. */
  readonly inWhole: <T>(act: (root: string) => Promise<T>) => Promise<T>
  readonly rateBytesPerSecond?: number | undefined
  /** Does the work that fills one of them, and says whose room it was that did not do. */
  readonly inRoom: <T>(name: string, work: () => Promise<T>) => Promise<T>
  readonly log: (line: string) => void
  readonly onProgress: (name: string, fraction: number) => void
  readonly signal: AbortSignal
}

export interface KeptContainer extends AsyncDisposable {
  /** For the log: what it is, and of when. */
  readonly says: string
  readonly options: Options
  /** Bytes of data in each tree, by the name of its mount; undefined where only reading it tells. */
  readonly trees: ReadonlyMap<string, number | undefined>
  /** @throws Fault `damaged`, `exhausted`, `aborted` */
  readonly fill: (request: FillTrees) => Promise<void>
}

/** @throws Fault `missing`, `damaged`; `invalid` for the backup of a virtual machine */
export async function openKept(
  { backup, storage }: Pick<Services, 'backup' | 'storage'>,
  archive: string,
  telling: ArchiveTelling,
): Promise<KeptContainer> {
  if (!isOfContainer(archive)) {
    throw invalid({ archive: `'${archive}' is the backup of a virtual machine, not of a container` })
  }
  if (isForeignArchive(archive)) return openKeptArchive(storage, archive, telling)
  const reader = await backup.open(asVolumeId(archive))
  try {
    return await keptIn(reader)
  } catch (cause) {
    await reader[Symbol.asyncDispose]()
    throw cause
  }
}

async function keptIn(reader: BackupReader): Promise<KeptContainer> {
  const { pointInTime } = reader.manifest
  return {
    says: `data from ${pointInTime}`,
    options: await storedOptions(reader),
    trees: new Map(reader.manifest.trees.map(({ name, dataBytes }) => [name, dataBytes])),
    fill: ({ options, inPlaces, rateBytesPerSecond, inRoom, log, onProgress, signal }) =>
      inPlaces(async (places) => {
        for (const [name, target] of Object.entries(places)) {
          const { entries, writtenBytes, leftOut, attributesLeftOut } = await inRoom(name, () =>
            restoreTree(reader, name, {
              target,
              idMap: idsOnDisk(options, mountOf(name, options[name] ?? '').values.idmap),
              signal,
              rateBytesPerSecond,
              onProgress: ({ fraction }) => onProgress(name, fraction),
            }),
          )
          log(`${name}: ${entries} files restored, ${humanSize(writtenBytes)}`)
          if (leftOut > 0) log(`${name}: ${leftOut} devices are left out: the container may have none of its own`)
          if (attributesLeftOut > 0)
            log(`${name}: ${attributesLeftOut} attributes are left out: its file system has none such`)
        }
      }),
    [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose](),
  }
}
