/** A copy of a tree with all that is said of its files: owners, modes, times, extended attributes, links, holes. */
import { Fault } from '#base/fault.ts'
import { paced } from '#base/paced.ts'
import { fed } from '../programs/feed.ts'
import type { Host } from '../host.ts'
import { streamOf } from '../programs/stream-of.ts'

const limitMs = 6 * 60 * 60_000

/**
 * Copies what is in `source` into `target`, both of them folders; what else is mounted there stays out. At a pace of
 * somebody's it goes through this process, blocks are never shared, sockets are left out, and a device of two names becomes
 * two.
 */
export async function copyTree(
  host: Host,
  {
    source,
    target,
    signal,
    isPatient = false,
    bytesPerSecond = 0,
  }: {
    readonly source: string
    readonly target: string
    readonly signal?: AbortSignal | undefined
    /** Everybody else comes first. */
    readonly isPatient?: boolean
    /** Absent or 0: as fast as it can be read. */
    readonly bytesPerSecond?: number | undefined
  },
): Promise<void> {
  if (bytesPerSecond > 0) return copySlowly({ source, target, signal, bytesPerSecond })
  const how = ['--archive', '--one-file-system', '--sparse=auto', '--reflink=auto', '--no-target-directory']
  const cp = ['cp', ...how, '--', source, target] as const
  await host.run(isPatient ? ['nice', '-n', '19', ...cp] : cp, { timeoutMs: limitMs, signal })
}

async function copySlowly({
  source,
  target,
  signal,
  bytesPerSecond,
}: {
  readonly source: string
  readonly target: string
  readonly signal: AbortSignal | undefined
  readonly bytesPerSecond: number
}): Promise<void> {
  const failed = (said: readonly string[]) =>
    new Fault('failed', `tar: ${said.find((line) => line !== '') ?? 'it was ended'}`, { cause: { said } })
  const pack = ['--create', '--format=posix', '--one-file-system', '--sparse', '--warning=no-file-ignored', ...kept]
  const files = streamOf(['tar', ...pack, '--file=-', `--directory=${source}`, '.'], failed, signal)
  const unpack = [...unpacking, ...kept, '--file=-', `--directory=${target}`]
  const { code, said } = await fed(['tar', ...unpack], paced(files, bytesPerSecond, signal), { signal })
  if (code === 0) return
  if (said.some((line) => /No space left on device|Disk quota exceeded/.test(line))) {
    throw new Fault('exhausted', `no space left on the device of '${target}'`, { cause: { said } })
  }
  throw failed(said)
}

const unpacking = ['--extract', '--same-owner', '--preserve-permissions', '--delay-directory-restore'] as const
const kept = ['--numeric-owner', '--acls', '--xattrs', '--xattrs-include=*'] as const

/** Writes down what is said of these folders below `source`, and nothing that lies in them. */
export async function packFolders(
  host: Host,
  {
    source,
    folders,
    archive,
  }: { readonly source: string; readonly folders: readonly string[]; readonly archive: string },
): Promise<void> {
  const how = ['--create', '--format=posix', '--no-recursion', ...kept, `--file=${archive}`, `--directory=${source}`]
  await host.run(['tar', ...how, '--', ...folders.map((name) => `./${name}`)])
}

/** Makes the folders below `target`, or gives those that are there owner, mode, times and attributes. */
export async function unpackFolders(
  host: Host,
  { archive, target }: { readonly archive: string; readonly target: string },
): Promise<void> {
  await host.run(['tar', ...unpacking, ...kept, `--file=${archive}`, `--directory=${target}`])
}
