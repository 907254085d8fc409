/**
 * Gives a volume of a stopped container to another one: the same volume, under a name of its new owner. Nothing is
 * copied, so it stays on its storage.
 */
import { Fault, invalid } from '#base/fault.ts'
import { asVmid, type VolumeId } from '#base/ids.ts'
import { type GuestConfig, isOwned, isTemplate, type Options, requireDigest, takeBack } from '#guests/config.ts'
import { rootOf } from '#guests/lxc/idmap.ts'
import { isMountName, mountOf, printMount } from '#guests/lxc/mountpoint.ts'
import { optionErrors } from '#guests/lxc/options.ts'
import type { GuestService } from '#guests/service.ts'
import type { StorageService } from '#storage/service.ts'
import { operation } from '#tasks/operation.ts'
import { requireMovable } from './move-volume.ts'
import { heldVolumes } from './volumes.ts'

export interface ReassignVolume {
  readonly vmid: number
  /** `mp0`, `unused1` */
  readonly volume: string
  readonly target: number
  readonly targetVolume: string
  readonly digest?: string | undefined
  readonly targetDigest?: string | undefined
}

export interface ReassignVolumeDeps {
  readonly guests: GuestService
  readonly storage: StorageService
}

export const reassignVolume = operation<ReassignVolume, ReassignVolumeDeps>('vzreassign', {
  upidType: 'move_volume',
  id: ({ vmid }) => vmid,
  locks: ({ vmid, target }) => [`guest/${vmid}`, `guest/${target}`],
})
  .step('plan', {
    do: async ({ params, deps }) => {
      const [vmid, target] = [asVmid(params.vmid), asVmid(params.target)]
      for (const one of [vmid, target]) await deps.guests.requireUnlocked(one)
      const [from, to] = [await deps.guests.config(vmid, 'lxc'), await deps.guests.config(target, 'lxc')]
      const old = planReassign(from, to, params)
      for (const one of [vmid, target]) await deps.guests.reap(one)
      const volid = await deps.storage.nameFor(old, target)
      const { [params.volume]: text = '', ...left } = from.options
      const given = { ...to.options, [params.targetVolume]: textFor(params, text, volid) }
      const errors = optionErrors(given)
      if (Object.keys(errors).length > 0) throw invalid(errors)
      return { old, volid, from: { before: from.options, after: left }, to: { before: to.options, after: given } }
    },
  })
  .step('volume', {
    do: async ({ deps, done, log }) => {
      await deps.storage.rename(done.plan.old, done.plan.volid)
      log(`${done.plan.old} is ${done.plan.volid} now`)
    },
    undo: async ({ deps, done: { plan } }) => {
      if (plan) await deps.storage.rename(plan.volid, plan.old)
    },
  })
  .step('config', {
    do: async ({ params, deps, done: { plan } }) => {
      await deps.guests.changeConfig(asVmid(params.target), (now) => takeBack(now, plan.to.after, plan.to.before))
      await deps.guests.changeConfig(asVmid(params.vmid), (now) => takeBack(now, plan.from.after, plan.from.before))
    },
    undo: async ({ params, deps, done: { plan } }) => {
      if (!plan) return
      await deps.guests.changeConfig(asVmid(params.vmid), (now) => takeBack(now, plan.from.before, plan.from.after))
      await deps.guests.changeConfig(asVmid(params.target), (now) => takeBack(now, plan.to.before, plan.to.after))
    },
  })

/** The volume that changes hands, found without touching anything. @throws Fault `missing`, `conflict`, `invalid` */
export function planReassign(from: GuestConfig, to: GuestConfig, params: ReassignVolume): VolumeId {
  const { vmid, volume, target, targetVolume } = params
  requireDigest(from, params.digest)
  requireDigest(to, params.targetDigest)
  if (vmid === target) throw invalid({ 'target-vmid': 'the volume belongs to that container already' })
  const old = requireMovable(asVmid(vmid), from, volume)
  requireRoles(volume, targetVolume)
  if (to.options[targetVolume] !== undefined) {
    throw invalid({ 'target-volume': `CT ${target} has '${targetVolume}' already` })
  }
  if (!isOwned(old, asVmid(vmid))) throw new Fault('conflict', `volume '${old}' belongs to another guest`)
  if (heldVolumes({ options: {}, snapshots: from.snapshots ?? {} }).includes(old)) {
    throw new Fault('conflict', `you can't give away a volume with snapshots`, {
      remedy: 'Delete the snapshots first.',
    })
  }
  requireReceiver(from.options, to, target)
  return old
}

function requireRoles(volume: string, targetVolume: string): void {
  if (volume === 'rootfs') throw invalid({ volume: 'a container cannot be without its rootfs' })
  if (targetVolume === 'rootfs') throw invalid({ 'target-volume': 'every container has its rootfs already' })
  if (isMountName(targetVolume) && !isMountName(volume)) {
    throw invalid({ 'target-volume': 'what is unused here has no place there: give it as unused, and mount it then' })
  }
}

function requireReceiver(from: Options, { options, running }: GuestConfig, target: number): void {
  if (isTemplate(options)) throw new Fault('conflict', `CT ${target} is a template, which gets no more volumes`)
  if (running) {
    throw new Fault('conflict', 'cannot move volumes of a running container', {
      remedy: `Stop it first: hako ct shutdown ${target}.`,
    })
  }
  if (rootOf(from) !== rootOf(options)) {
    throw new Fault('conflict', `root of CT ${target} is another user here: the files would not be its own`, {
      remedy: 'Copy them inside instead.',
    })
  }
}

function textFor({ volume, targetVolume }: ReassignVolume, text: string, volid: VolumeId): string {
  if (!isMountName(targetVolume)) return volid
  return printMount({ ...mountOf(volume, text), name: targetVolume }, { volume: volid })
}
