/**
 * Restores a virtual machine as a scratch guest: its disks as volumes of the scratch id, its configuration
 * cut down to what may boot beside the original.
 */
import { asVmid } from '#base/ids.ts'
import type { BackupReader } from '#datastore/restore/reader.ts'
import { withoutSecrets } from '#guests/cloud-init/options.ts'
import type { Options } from '#guests/config.ts'
import { storedOptions } from '../backup/guest-conf.ts'
import { optionsWithVolumes, restoreDisks } from '../backup/restore-disks.ts'
import { ownCloudInits } from '../guest/cloud-init-drive.ts'
import { type ClimbContext, diskDigestKind, type RestoredScratch } from './drill-facts.ts'

/** Options that reach beyond the guest, or would act on the original. */
const leftOut: readonly RegExp[] = [
  /^hookscript$/,
  /^args$/,
  /^onboot$/,
  /^startup$/,
  /^protection$/,
  /^(hostpci|usb|parallel|virtiofs)\d+$/,
  // What it would share with the guest itself, or take from it.
  /^(ivshmem|affinity|hugepages|keephugepages)$/,
]

export async function restoreMachine(context: ClimbContext, reader: BackupReader): Promise<RestoredScratch> {
  const { params, deps, done, task, progress, signal, log } = context
  const vmid = asVmid(done.point.scratch)
  const restored = await restoreDisks({
    reader,
    vmid,
    storage: params.storage,
    isNamed: true,
    services: deps,
    log,
    signal,
    onProgress: (drive, fraction, doneBytes) => progress(`write ${drive}`, fraction, doneBytes),
  })
  const stored = await storedOptions(reader)
  const options = optionsWithVolumes(stored, restored.disks)
  const cloudInit = await ownCloudInits(options, params.storage, { vmid, storage: deps.storage, log })
  const config = scratchOptions({ ...options, ...cloudInit }, done.point.guest)
  await deps.guests.writeConfig(vmid, config, { owner: task.upid })
  return {
    name: stored.name ?? null,
    toldName: stored.name ?? `VM${done.point.guest.split('/')[1]}`,
    config: withoutSecrets(config),
    parts: restored.disks.map(({ drive, sizeBytes, digest }) => ({
      drive,
      sizeBytes,
      digest: digest ?? '',
      digestKind: diskDigestKind,
    })),
    phases: { fetch: restored.fetchMs, write: restored.writeMs },
  }
}

/** The MAC addresses stay: a guest may know its network by them, and nothing on the isolated one has the same. */
export function scratchOptions(options: Options, guest: string): Options {
  const kept = Object.entries(options).filter(([name]) => !leftOut.some((pattern) => pattern.test(name)))
  // Without a serial console the drill could see a boot only through the agent.
  return { serial0: 'socket', ...Object.fromEntries(kept), name: `drill-${guest.replace('/', '-')}` }
}
