/** `skopeo`: what a registry of container images has, and one image of it as a file. It runs sealed. */
import { basename, join } from 'node:path'
import { MiB } from '#base/bytes.ts'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import type { Host } from '../host.ts'
import { runSealed, sealedFolder, type SealedRun } from './sealed.ts'

export type RegistryAccess = Pick<SealedRun, 'uid' | 'runDir' | 'trusted' | 'reach' | 'signal'>

export interface ImagePull extends RegistryAccess {
  /** With its tag. */
  readonly reference: string
  /** Where the tool works; it is given to the tool's user. */
  readonly folder: string
  readonly mostBytes: number
  readonly timeoutMs: number
  readonly idleMs: number
  readonly onBytes?: SealedRun['onBytes']
  readonly onLine?: (line: string) => void
}

const tagsLimits = { mostBytes: 32 * MiB, idleMs: 15_000, timeoutMs: 30_000, tags: 20_000 }

/** @throws Fault `denied` for an address that is not asked, `unavailable` with what the registry says */
export async function registryTags(host: Host, reference: string, access: RegistryAccess): Promise<string[]> {
  const argv = ['skopeo', 'list-tags', '--no-creds', `docker://${reference}`] as const
  const { mostBytes, idleMs, timeoutMs } = tagsLimits
  const bounds = { mostBytes, idleMs, timeoutMs, fileBytes: 0, outputBytes: 8 * MiB }
  const { stdout } = await asked(reference, () =>
    runSealed(host, { ...access, ...bounds, argv, local: localIn(reference) }),
  )
  const { Tags: tags } = JSON.parse(stdout) as { Tags?: unknown }
  return Array.isArray(tags) ? tags.filter((tag) => typeof tag === 'string').slice(0, tagsLimits.tags) : []
}

/** Writes the image for this machine's processor into the folder, as an OCI archive, and returns the file's path. */
export async function pullImage(host: Host, pull: ImagePull): Promise<string> {
  const { reference, mostBytes, timeoutMs, idleMs, onBytes, onLine, ...access } = pull
  const file = join(sealedFolder, 'image.tar')
  const verb = ['skopeo', '--tmpdir', sealedFolder, 'copy', '--src-no-creds'] as const
  const argv = [...verb, `docker://${reference}`, `oci-archive:${file}`] as const
  const bounds = { mostBytes, idleMs, timeoutMs, fileBytes: mostBytes, onBytes }
  const telling = onLine ? { onLine: (line: string) => onLine(printable(line)) } : {}
  await asked(reference, () => runSealed(host, { ...access, ...bounds, ...telling, argv, local: localIn(reference) }))
  return join(pull.folder, basename(file))
}

/** The registry a reference names, when it is on the loopback. */
function localIn(reference: string): string | undefined {
  return /^((?:localhost|127\.\d+\.\d+\.\d+)(?::\d+)?)\//.exec(reference)?.[1]
}

async function asked<T>(reference: string, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask()
  } catch (cause) {
    if (!isFault(cause, 'failed')) throw cause
    if (/failed to execute skopeo/.test(messageOf(cause))) {
      throw new Fault('unavailable', "the program 'skopeo' is not installed on this node; package 'skopeo' has it", {
        cause,
        remedy: 'Run `apt-get install skopeo` on the node.',
      })
    }
    const said = /msg="((?:[^"\\]|\\.)*)"/.exec(messageOf(cause))?.[1]?.replaceAll('\\"', '"')
    const why = printable(said ?? messageOf(cause))
    throw new Fault('unavailable', `the registry does not give '${reference}': ${why}`, { cause })
  }
}

function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, 500)
}
