/**
 * Makes a container: takes its id, makes its volumes, unpacks a template into them, writes its configuration, starts it
 * if asked.
 */
import { humanSize } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import { asVmid, asVolumeId } from '#base/ids.ts'
import type { Random } from '#base/random.ts'
import type { Options } from '#guests/config.ts'
import { completed, requireOptions } from '#guests/lxc/change.ts'
import { idMapOf } from '#guests/lxc/idmap.ts'
import { mountNames } from '#guests/lxc/mountpoint.ts'
import { factsOfNode } from '#guests/lxc/node-facts.ts'
import { osTypeOf, setUpNew } from '#guests/lxc/setup/set-up.ts'
import { insideOf, toldOf } from '#guests/lxc/told.ts'
import type { KeptTrees } from '#guests/lxc/kept-trees.ts'
import type { GuestService } from '#guests/service.ts'
import type { Host } from '#host/host.ts'
import { nodeArchitecture } from '#host/system/topology.ts'
import type { PoolService } from '#pools/service.ts'
import type { StorageService } from '#storage/service.ts'
import { operation } from '#tasks/operation.ts'
import { intoPool, startWhenMade } from './last-steps.ts'
import { makeMounts } from './container-volumes.ts'
import { requireMakeable } from './before-making.ts'
import { aboutOneGuest } from './one-guest.ts'
import { becomeTemplate } from './template.ts'
import { freeNewVolumes, volumesOf } from './volumes.ts'

export interface CreateContainer {
  readonly vmid: number
  /** Volume, or path, of the template. */
  readonly template: string
  /** As given by the client; mounts may ask for new volumes. */
  readonly options: Options
  /** Of root inside, as `/etc/shadow` has it. */
  readonly passwordHash?: string | undefined
  /** Of root inside, as `authorized_keys` has them. */
  readonly sshKeys?: string | undefined
  /** Pool to put it in. */
  readonly pool?: string | undefined
  readonly start?: boolean | undefined
  /** Make it a template at once. */
  readonly asTemplate?: boolean | undefined
}

export interface CreateContainerDeps {
  readonly guests: GuestService
  readonly storage: StorageService
  readonly host: Host
  readonly random: Random
  readonly pools: Pick<PoolService, 'put' | 'takeOut'>
}

export interface UnpackingDeps extends CreateContainerDeps {
  readonly templateTrees: Pick<KeptTrees, 'fill'>
}

export const createContainer = operation<CreateContainer, UnpackingDeps>('vzcreate', aboutOneGuest)
  .step('reservation', {
    do: async ({ params, deps, task }) => {
      const vmid = asVmid(params.vmid)
      const options = requireOptions(params.options)
      await templatePath(deps.storage, params.template)
      await requireMakeable(deps, { vmid, options, make: mountNames(options) })
      await deps.guests.reserve(vmid, task.upid, 'lxc')
      // Volumes an earlier guest of this id left are not this task's to remove.
      return volumesOf(deps.storage, vmid)
    },
    undo: ({ params, deps, task }) => deps.guests.release(asVmid(params.vmid), task.upid),
  })
  .step('volumes', {
    do: ({ params, deps, log }) => {
      const options = requireOptions(params.options)
      const context = { vmid: asVmid(params.vmid), storage: deps.storage, host: deps.host, log }
      return makeMounts(options, mountNames(options), context)
    },
    undo: async ({ params, deps, done, task }) => {
      const vmid = asVmid(params.vmid)
      if (!(await deps.guests.isMadeBy(vmid, task.upid))) return
      await deps.guests.unwrite(vmid, task.upid)
      await freeNewVolumes(deps, vmid, done.reservation ?? [])
    },
  })
  .step('files', {
    do: async ({ params, deps, done, log, warn, progress, signal }) => {
      const vmid = asVmid(params.vmid)
      const options = { ...requireOptions(params.options), ...done.volumes }
      const archive = await templatePath(deps.storage, params.template)
      return deps.guests.withVolumes(vmid, options, async ({ rootfs = '' }) => {
        log(`unpacking '${params.template}'`)
        const onProgress = ({ fraction }: { readonly fraction: number }) => progress('unpack', fraction)
        const idMap = idMapOf(options)
        const { entries, bytes } = await deps.templateTrees.fill({ archive, rootfs, idMap, signal, onProgress })
        log(`${entries} files, ${humanSize(bytes)}`)
        const ostype = options.ostype ?? (await osTypeOf(insideOf(options, rootfs, warn)))
        const whole = { ...options, ostype }
        const { passwordHash, sshKeys = '' } = params
        const keys = { passwordHash, sshKeys: sshKeys.split(/\r?\n/).filter((line) => line.trim() !== '') }
        const told = toldOf(vmid, whole, await factsOfNode())
        await setUpNew(deps.host, insideOf(whole, rootfs, warn), { ...told, ...keys })
        return { ostype }
      })
    },
    undo: ({ params, deps }) => deps.guests.closeVolumes(asVmid(params.vmid)),
  })
  // No undo: giving back the reservation takes the configuration with it.
  .step('config', {
    do: async ({ params, deps, done, task }) => {
      const options = completed(
        { arch: nodeArchitecture(), ...requireOptions(params.options), ...done.volumes, ...done.files },
        deps.random,
      )
      await deps.guests.writeConfig(asVmid(params.vmid), options, { owner: task.upid })
    },
  })
  // No undo: bases are the guest's volumes, too.
  .step('template', {
    do: ({ params, deps, log }) =>
      params.asTemplate === true ? becomeTemplate(deps, asVmid(params.vmid), log) : undefined,
  })
  .step(
    'pool',
    intoPool(({ vmid }) => vmid),
  )
  .step('start', startWhenMade)

/** Where the template is. @throws Fault `missing`, `invalid` when the volume is no template */
async function templatePath(storage: StorageService, template: string): Promise<string> {
  if (template.startsWith('/')) return template
  const volid = asVolumeId(template)
  const { content } = await storage.describe(volid)
  if (content !== 'vztmpl') throw new Fault('invalid', `volume '${volid}' is no template of a container`)
  return (await storage.location(volid)).path
}
