/**
 * Makes a volume of a container larger, also while it runs: an image first, then the file system in it; or what a folder
 * is held to.
 *
 * As of virtual machines this is not taken back but finished. A file system that has not followed its image yet follows
 * at the next start.
 */
import { formatSize, parseSize } from '#base/bytes.ts'
import { Fault, invalid, isFault, missing } from '#base/fault.ts'
import { asVmid, type Vmid, type VolumeId } from '#base/ids.ts'
import { isTemplate, type Options, requireDigest } from '#guests/config.ts'
import { isMountName, mountOf, printMount, volumesIn } from '#guests/lxc/mountpoint.ts'
import type { GuestService } from '#guests/service.ts'
import { checkExt4, growExt4 } from '#host/disks/ext4.ts'
import type { Host } from '#host/host.ts'
import { growLoopOf } from '#host/disks/mount.ts'
import type { StorageService } from '#storage/service.ts'
import { operation } from '#tasks/operation.ts'
import { aboutOneGuest } from './one-guest.ts'

export interface ResizeVolume {
  readonly vmid: number
  /** `rootfs`, `mp0` */
  readonly disk: string
  /** `+5G` more, or `32G` in all. */
  readonly size: string
  readonly digest?: string | undefined
}

export interface ResizeVolumeDeps {
  readonly guests: GuestService
  readonly storage: StorageService
  readonly host: Host
}

export const resizeVolume = operation<ResizeVolume, ResizeVolumeDeps>('vzresize', {
  upidType: 'resize',
  ...aboutOneGuest,
})
  .step('check', {
    do: async ({ params, deps }) => {
      const vmid = asVmid(params.vmid)
      await deps.guests.requireUnlocked(vmid)
      const config = await deps.guests.config(vmid, 'lxc')
      requireDigest(config, params.digest)
      if (isTemplate(config.options)) throw new Fault('conflict', `the volumes of template ${vmid} are only read`)
      const volid = volumesIn(config.options).find(({ name }) => name === params.disk)?.volid
      if (volid === undefined) throw missing('disk', params.disk)
      const { sizeBytes: nowBytes, format } = await deps.storage.describe(volid)
      if (format !== 'raw' && nowBytes === 0) {
        throw invalid({ disk: `'${volid}' is a folder, which has no size of its own` })
      }
      const isMore = params.size.startsWith('+')
      const sizeBytes = isMore ? nowBytes + parseSize(params.size.slice(1)) : parseSize(params.size)
      if (sizeBytes < nowBytes) {
        throw new Fault('failed', 'shrinking disks is not supported', {
          remedy: `Volume ${params.disk} has ${formatSize(nowBytes)}: ask for at least that.`,
        })
      }
      return { volid, nowBytes, sizeBytes, isImage: format === 'raw' }
    },
  })
  .step('volume', {
    do: async ({ params, deps, done, log }) => {
      const { volid, nowBytes, sizeBytes } = done.check
      await deps.storage.resize(volid, sizeBytes)
      log(`${params.disk}: ${formatSize(nowBytes)} -> ${formatSize((await deps.storage.describe(volid)).sizeBytes)}`)
    },
    undo: async ({ params, deps, done }) => {
      if (done.check) await rememberSize(deps, asVmid(params.vmid), params.disk, done.check.volid)
    },
  })
  // No undo, here and below: an image that is larger than what is in it harms nobody, and the one before says its size.
  .step('file system', {
    do: async ({ params, deps, done, warn }) => {
      const { host, guests, storage } = deps
      if (!done.check.isImage) return
      const mounted = await guests.mountOf(asVmid(params.vmid), params.disk)
      const { path } = await storage.location(done.check.volid)
      if (mounted === undefined) {
        await checkExt4(host, path)
        await growExt4(host, path)
        return
      }
      try {
        await growExt4(host, await growLoopOf(host, mounted))
      } catch (fault) {
        if (!isFault(fault, 'failed')) throw fault
        // Not every node may grow what is mounted: that takes a right of its own.
        warn(
          `the image has its new size; the file system of ${params.disk} grows when the container starts next, because this node may not grow what is mounted: ${fault.message}`,
        )
      }
    },
  })
  .step('config', {
    do: ({ params, deps, done }) => rememberSize(deps, asVmid(params.vmid), params.disk, done.check.volid),
  })

/** Writes the volume's true size wherever the mount still holds it. */
async function rememberSize(
  { guests, storage }: Pick<ResizeVolumeDeps, 'guests' | 'storage'>,
  vmid: Vmid,
  disk: string,
  volid: VolumeId,
): Promise<void> {
  const size = formatSize((await storage.describe(volid)).sizeBytes)
  const sized = (options: Options): Options => {
    const text = options[disk]
    const isSame = volumesIn(options).some((holder) => holder.name === disk && holder.volid === volid)
    if (text === undefined || !isMountName(disk) || !isSame) return options
    return { ...options, [disk]: printMount(mountOf(disk, text), { size }) }
  }
  await guests.changeConfig(vmid, sized)
  await guests.changeRunning(vmid, sized)
}
