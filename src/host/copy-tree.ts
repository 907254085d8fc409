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
  }: { readonly source: string; readonly target: string; readonly signal?: AbortSignal | undefined },
): Promise<void> {
  const how = ['--archive', '--one-file-system', '--sparse=auto', '--reflink=auto', '--no-target-directory']
  await host.run(['cp', ...how, '--', source, target], { timeoutMs: limitMs, signal })
}
