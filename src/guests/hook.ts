/**
 * The snippet root attached to a guest, run around start and stop with the guest's id and the phase.
 *
 * It runs as the owner of its file. What prepares the node for a guest has to be root's own, and then is run as root;
 * a snippet of somebody else gets no more rights than they have. So whoever can put a file in the snippet's place gains
 * nothing, and what others than its owner can change is not run at all.
 */
import { Fault, isFault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { asVolumeId } from '#base/ids.ts'
import type { Host } from '#host/host.ts'
import { ownerOfProgram } from '#host/programs/trusted-program.ts'
import type { GuestStorage } from './needs.ts'

const limitMs = 120_000

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
  const { uid, gid } = await ownerOfProgram(path, `hookscript '${volume}'`)
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
