/** What an ACME server says of itself, for those the node may ask it for. */
import { Fault } from '#base/fault.ts'
import { directories, type DirectoryMeta, directoryMeta } from '#cluster/acme/directory.ts'
import type { Settings } from '#settings.ts'

export interface DirectoryQuestion {
  readonly directory: string
  readonly settings: Pick<Settings, 'caFile'>
  readonly may: (path: string, ...privileges: readonly string[]) => Promise<boolean>
  readonly signal: AbortSignal
}

/** A node asks no address for a stranger but those everybody knows. @throws Fault `denied`, `unavailable` */
export async function askDirectory({ directory, settings, may, signal }: DirectoryQuestion): Promise<DirectoryMeta> {
  const isKnown = directories.some(({ url }) => url === directory)
  if (!isKnown && !(await may('/', 'Sys.Modify'))) {
    throw new Fault(
      'denied',
      `Permission check failed (/, Sys.Modify): '${directory}' is none of the known directories`,
    )
  }
  return directoryMeta(directory, { caFile: settings.caFile, signal })
}
