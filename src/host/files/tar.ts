/**
 * Unpacking a tar archive somebody else made, by GNU tar: it keeps what file systems know of files, in all the forms
 * archives have had for it (holes, extended attributes, access lists, capabilities).
 *
 * It runs in a jail that has nothing but the directory to write to, and under an id map as nobody of this machine.
 */
import { GiB } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import { fed, type FedResult } from '../programs/feed.ts'
import { type IdMap, underIdMap } from '../lxc/id-map.ts'
import { jailed, jailedDirectory, withRightsOverFiles } from '../programs/jail.ts'

export interface ExtractTar {
  readonly directory: string
  /** Ids inside the archive are ids of this map. Without one they are the machine's own. */
  readonly idMap?: IdMap | undefined
  readonly signal?: AbortSignal | undefined
}

/** It remembers directories and links until the end, and an archive may have as many as it likes. */
const memory = ['prlimit', `--as=${GiB}`] as const
const extract = [
  ...memory,
  'tar',
  '--extract',
  '--file=-',
  `--directory=${jailedDirectory}`,
  '--numeric-owner',
  '--same-owner',
  '--preserve-permissions',
  '--acls',
  '--xattrs',
  '--xattrs-include=user.*',
  '--xattrs-include=security.capability',
  // Not worth a word: clocks differ, and other programs have facts of their own.
  '--warning=no-timestamp',
  '--warning=no-unknown-keyword',
] as const
const isFull = (line: string) =>
  /: (?:No space left on device|Disk quota exceeded|Wrote only \d+ of \d+ bytes)$/.test(line)

/** @throws Fault `exhausted`, `failed` in tar's words; whatever the pieces throw; the reason of the signal */
export async function extractTar(pieces: AsyncIterable<Uint8Array>, { directory, idMap, signal }: ExtractTar) {
  const program = withRightsOverFiles(extract)
  const argv = jailed(directory, idMap === undefined ? program : underIdMap(idMap, program))
  const result = await fed(argv, pieces, { signal, isHopeless: isFull })
  if (result.code !== 0) throw faultOf(result)
}

function faultOf({ code, said }: FedResult): Fault {
  const full = said.find(isFull)
  if (full !== undefined) {
    return new Fault('exhausted', 'there is no room for what is in the archive', { cause: { said } })
  }
  const [first = code === null ? 'tar was ended' : `tar failed with exit code ${code}`] = said
  return new Fault('failed', `the archive cannot be unpacked: ${first}`, { cause: { said } })
}
