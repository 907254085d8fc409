/** The snippet root attached to a guest, run around start and stop with the guest's id and the phase. */
import type { Vmid } from '#base/ids.ts'
import { asVolumeId } from '#base/ids.ts'
import type { Host } from '#host/host.ts'
import type { GuestStorage } from './needs.ts'

const limitMs = 120_000

/** @throws Fault `failed` when the script ends with another exit code than 0; before a start that prevents it */
export async function runHook(
  needs: { readonly host: Host; readonly storage: Pick<GuestStorage, 'location'> },
  volume: string,
  vmid: Vmid,
  phase: string,
): Promise<void> {
  const { path } = await needs.storage.location(asVolumeId(volume))
  await needs.host.run([path, String(vmid), phase], { timeoutMs: limitMs })
}
