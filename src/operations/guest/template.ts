/**
 * Makes a stopped guest a template: its volumes are only read from now on, and other guests can be linked to them.
 *
 * Nothing is copied; the volumes get the names of bases (`base-100-disk-0`, `basevol-100-disk-0`), and disks of virtual
 * machines belong to root.
 */
import { Fault } from '#base/fault.ts'
import { asVmid, asVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'
import { type GuestConfig, isTemplate, type Options, takeBack } from '#guests/config.ts'
import type { GuestKind } from '#guests/kind.ts'
import { mountedVolumes, mountOf, printMount } from '#guests/lxc/mountpoint.ts'
import { driveOf, printDrive } from '#guests/qemu/drive.ts'
import { operation } from '#tasks/operation.ts'
import { aboutOneGuest } from './one-guest.ts'
import { type DiskDeps, requireDisk } from './resize.ts'
import { diskVolumes, type OpenDisk } from './snapshot-disks.ts'

export interface TemplateGuest {
  readonly vmid: number
  /** Only this disk becomes a base. */
  readonly disk?: string | undefined
}

/** What templates of virtual machines and of containers differ in. */
interface TemplateKind {
  readonly kind: GuestKind
  /** Volumes with the names of their drives or mounts; not those that are unused. */
  readonly disksOf: (options: Options) => readonly OpenDisk[]
  /** The text of a drive or mount that holds this volume instead of its own. */
  readonly holding: (name: string, text: string, volid: VolumeId) => string
}

const machines: TemplateKind = {
  kind: 'qemu',
  disksOf: diskVolumes,
  holding: (name, text, file) => printDrive(driveOf(name, text), { file }),
}

const containers: TemplateKind = {
  kind: 'lxc',
  disksOf: (options) => mountedVolumes(options).map(({ name, volid }) => ({ drive: name, volid })),
  holding: (name, text, volume) => printMount(mountOf(name, text), { volume }),
}

export const templateGuest = template('qmtemplate', machines)
export const templateContainer = template('vztemplate', containers)

function template(operationName: string, kind: TemplateKind) {
  return operation<TemplateGuest, DiskDeps>(operationName, aboutOneGuest)
    .step('check', {
      do: async ({ params, deps }) => {
        const vmid = asVmid(params.vmid)
        await deps.guests.requireUnlocked(vmid)
        const config = await deps.guests.config(vmid, kind.kind)
        requireTemplatable(vmid, config, kind.kind)
        // Removes what a guest that powered itself off left behind; it will not run again.
        await deps.guests.reap(vmid)
        if (params.disk !== undefined) requireDisk(config.options, params.disk)
        const disks = kind.disksOf(config.options).filter(({ drive }) => [undefined, drive].includes(params.disk))
        return {
          before: config.options,
          next: templateOptions(kind, config.options, disks),
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
}

/** Makes a container a template that was just made by the same task, whose undo takes its volumes whatever they are called. */
export async function becomeTemplate(deps: DiskDeps, vmid: Vmid, log: (line: string) => void): Promise<void> {
  const { options } = await deps.guests.config(vmid, 'lxc')
  const disks = containers.disksOf(options)
  for (const { volid } of disks) log(`${volid} is ${await deps.storage.freeze(volid)} now`)
  await deps.guests.changeConfig(vmid, (now) => templateOptions(containers, now, disks))
}

/** @throws Fault `conflict` in PVE's words when the guest cannot become a template */
export function requireTemplatable(
  vmid: Vmid,
  { options, running, snapshots = {} }: GuestConfig,
  kind: GuestKind = 'qemu',
): void {
  const [noun, command] = kind === 'lxc' ? ['CT', 'ct'] : ['VM', 'vm']
  if (Object.keys(snapshots).length > 0) {
    throw new Fault('conflict', `unable to create template, because ${noun} contains snapshots`, {
      remedy: `Delete them first: \`hako ${command} snapshot list ${vmid}\`.`,
    })
  }
  if (isTemplate(options)) throw new Fault('conflict', `you can't convert a template to a template`)
  if (running) {
    throw new Fault(
      'conflict',
      `you can't convert a ${noun} to template if ${kind === 'lxc' ? 'the CT' : 'VM'} is running`,
      { remedy: 'Stop it first.' },
    )
  }
}

function templateOptions({ disksOf, holding }: TemplateKind, options: Options, disks: readonly OpenDisk[]): Options {
  const next: Record<string, string> = { ...options, template: '1' }
  for (const { drive, volid } of disksOf(options)) {
    const text = options[drive]
    const isWanted = disks.some((disk) => disk.drive === drive)
    if (text !== undefined && isWanted) next[drive] = holding(drive, text, baseOf(volid))
  }
  return next
}

/**
 * `local:100/vm-100-disk-0.raw` becomes `local:100/base-100-disk-0.raw`, and `local:100/subvol-100-disk-0.subvol`
 * becomes `local:100/basevol-100-disk-0.subvol`.
 */
function baseOf(volid: VolumeId): VolumeId {
  return asVolumeId(volid.replace(/\/vm-(\d+-[^/]*)$/, '/base-$1').replace(/\/subvol-(\d+-[^/]*)$/, '/basevol-$1'))
}
