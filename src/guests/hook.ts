/**
 * The snippet root attached to a guest, run around start and stop with the guest's id and the phase.
 *
 * It runs as the owner of its file. What prepares the node for a guest has to be root's own, and then is run as root;
 * a snippet of somebody else gets no more rights than they have. So whoever can put a file in the snippet's place gains
 * nothing, and what others than its owner can change is not run at all.
 */
import { lstat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Fault, isFault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { asVolumeId } from '#base/ids.ts'
import { asFileFault } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import type { GuestStorage } from './needs.ts'

const limitMs = 120_000
const [othersWrite, sticky, executable] = [0o022, 0o1000, 0o111]

export type HookPhase = 'pre-start' | 'post-start' | 'pre-stop' | 'post-stop'

interface HookNeeds {
  readonly host: Host
  readonly storage: Pick<GuestStorage, 'location'>
}

/** @throws Fault `failed` when the script ends with another exit code than 0, `denied` when it is not run */
export async function runHook(
  { host, storage }: HookNeeds,
  volume: string,
  vmid: Vmid,
  phase: HookPhase,
): Promise<void> {
  const { path } = await storage.location(asVolumeId(volume))
  const { uid, gid } = await ownerOf(path, volume)
  const rights = ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups', '--no-new-privs'] as const
  const withoutRoot = uid === 0 ? [] : ['--inh-caps=-all', '--bounding-set=-all']
  try {
    await host.run([...rights, ...withoutRoot, path, String(vmid), phase], { timeoutMs: limitMs, cwd: '/' })
  } catch (fault) {
    if (!isFault(fault, 'failed')) throw fault
    throw new Fault('failed', `hookscript error for ${vmid} on ${phase}: ${fault.message.replace(/^setpriv /, '')}`, {
      cause: fault,
    })
  }
}

async function ownerOf(path: string, volume: string): Promise<{ readonly uid: number; readonly gid: number }> {
  const facts = await lstat(path).catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
  if (!facts.isFile()) throw new Fault('denied', `hookscript '${volume}' is no plain file`)
  if ((facts.mode & executable) === 0) throw new Fault('denied', `hookscript '${volume}' is not executable`)
  if ((facts.mode & othersWrite) !== 0) throw changeable(volume, path)
  // What root runs must be the very file that was looked at.
  for (let folder = dirname(path); facts.uid === 0; folder = dirname(folder)) {
    const { uid, mode } = await lstat(folder)
    if (uid !== 0 || ((mode & othersWrite) !== 0 && (mode & sticky) === 0)) throw changeable(volume, folder)
    if (folder === '/') break
  }
  return facts
}

function changeable(volume: string, place: string): Fault {
  return new Fault('denied', `hookscript '${volume}' is not run: others than its owner can change '${place}'`, {
    remedy: `chmod go-w '${place}'`,
  })
}
