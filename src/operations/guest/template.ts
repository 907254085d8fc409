/**
 * Makes a stopped guest a template: its disks are only read from now on, and other guests can be linked to them.
 *
 * Nothing is copied; the disks get the names of bases (`base-100-disk-0`) and belong to root.
 */
import { Fault } from '#base/fault.ts'
import { asVmid, asVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'
import { type GuestConfig, isTemplate, type Options, takeBack } from '#guests/config.ts'
import { driveOf, printDrive, volumeIn } from '#guests/qemu/drive.ts'
import { operation } from '#tasks/operation.ts'
import { aboutOneGuest } from './one-guest.ts'
import { type DiskDeps, requireDisk } from './resize.ts'
import { diskVolumes } from './snapshot-disks.ts'

export interface TemplateGuest {
  readonly vmid: number
  /** Only this disk becomes a base. */
  readonly disk?: string | undefined
}

export const templateGuest = operation<TemplateGuest, DiskDeps>('qmtemplate', aboutOneGuest)
  .step('check', {
    do: async ({ params, deps }) => {
      const vmid = asVmid(params.vmid)
      await deps.guests.requireUnlocked(vmid)
      const config = await deps.guests.config(vmid)
      requireTemplatable(vmid, config)
      // Removes what a guest that powered itself off left behind; it will not run again.
      await deps.guests.reap(vmid)
      if (params.disk !== undefined) requireDisk(config.options, params.disk)
      const disks = diskVolumes(config.options).filter(({ drive }) => [undefined, drive].includes(params.disk))
      return {
        before: config.options,
        next: templateOptions(config.options, disks),
        volumes: disks.map(({ volid }) => volid),
      }
    },
  })
  .step('disks', {
    do: async ({ deps, done, log }) => {
      for (const volid of done.check.volumes) log(`${volid} is ${await deps.storage.freeze(volid)} now`)
    },
    undo: async ({ deps, done }) => {
      for (const volid of done.check?.volumes ?? []) {
        if (baseOf(volid) !== volid) await deps.storage.unfreeze(baseOf(volid))
      }
    },
  })
  .step('config', {
    do: ({ params, deps, done }) => deps.guests.changeConfig(asVmid(params.vmid), () => done.check.next),
    undo: async ({ params, deps, done }) => {
      const { check } = done
      if (check) await deps.guests.changeConfig(asVmid(params.vmid), (now) => takeBack(now, check.before, check.next))
    },
  })

/** @throws Fault `conflict` in PVE's words when the guest cannot become a template */
export function requireTemplatable(vmid: Vmid, { options, running, snapshots = {} }: GuestConfig): void {
  if (Object.keys(snapshots).length > 0) {
    throw new Fault('conflict', 'unable to create template, because VM contains snapshots', {
      remedy: `Delete them first: \`hako vm snapshot list ${vmid}\`.`,
    })
  }
  if (isTemplate(options)) throw new Fault('conflict', `you can't convert a template to a template`)
  if (running) {
    throw new Fault('conflict', `you can't convert a VM to template if VM is running`, { remedy: 'Stop it first.' })
  }
}

function templateOptions(options: Options, disks: readonly { drive: string; volid: VolumeId }[]): Options {
  const next: Record<string, string> = { ...options, template: '1' }
  for (const { drive, volid } of disks) {
    const text = options[drive]
    if (text !== undefined && volumeIn(drive, text) === volid) {
      next[drive] = printDrive(driveOf(drive, text), { file: baseOf(volid) })
    }
  }
  return next
}

/** `local:100/vm-100-disk-0.raw` becomes `local:100/base-100-disk-0.raw`. */
function baseOf(volid: VolumeId): VolumeId {
  return asVolumeId(volid.replace(/\/vm-(\d+-[^/]*)$/, '/base-$1'))
}
