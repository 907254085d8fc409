/** A copy of a tree with all that is said of its files: owners, modes, times, extended attributes, links, holes. */
import type { Host } from './host.ts'

const limitMs = 6 * 60 * 60_000

/** Copies what is in `source` into `target`, both of them folders; what else is mounted there stays out. */
export async function copyTree(
  host: Host,
  {
    source,
    target,
    signal,
    isPatient = false,
  }: {
    readonly source: string
    readonly target: string
    readonly signal?: AbortSignal | undefined
    /** Everybody else comes first. */
    readonly isPatient?: boolean
  },
): Promise<void> {
  const how = ['--archive', '--one-file-system', '--sparse=auto', '--reflink=auto', '--no-target-directory']
  const cp = ['cp', ...how, '--', source, target] as const
  await host.run(isPatient ? ['nice', '-n', '19', ...cp] : cp, { timeoutMs: limitMs, signal })
}

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
  const how = ['--extract', '--same-owner', '--preserve-permissions', '--delay-directory-restore', ...kept]
  await host.run(['tar', ...how, `--file=${archive}`, `--directory=${target}`])
}
