/**
 * Makes a container from another that does not run: its files are copied, as they are, into volumes of its own.
 *
 * The clone is nobody's twin: it gets a name, addresses and keys of its own. Of one that runs there would be no moment
 * in time to copy, and nothing says so by pretending.
 */
import { Fault, invalid } from '#base/fault.ts'
import { asVmid, splitVolumeId, type Vmid } from '#base/ids.ts'
import { GiB, parseSize } from '#base/bytes.ts'
import { hostnameOf, type Options } from '#guests/config.ts'
import { fresh } from '#guests/lxc/change.ts'
import { type Mount, mountsOf, printMount, wishOf } from '#guests/lxc/mountpoint.ts'
import { factsOfNode } from '#guests/lxc/node-facts.ts'
import { setUpCopy } from '#guests/lxc/setup/set-up.ts'
import { insideOf, toldOf } from '#guests/lxc/told.ts'
import { copyTree } from '#host/copy-tree.ts'
import { operation } from '#tasks/operation.ts'
import { intoPool } from './last-steps.ts'
import { makeMounts } from './container-volumes.ts'
import type { CreateContainerDeps } from './create-container.ts'
import { freeNewVolumes, volumesOf } from './volumes.ts'

export interface CloneContainer {
  /** The container to clone. */
  readonly vmid: number
  readonly newid: number
  readonly hostname?: string | undefined
  readonly description?: string | undefined
  /** Default: where each volume of the source is. */
  readonly storage?: string | undefined
  /** Pool to put the new container in. */
  readonly pool?: string | undefined
}

export const cloneContainer = operation<CloneContainer, CreateContainerDeps>('vzclone', {
  id: ({ vmid }) => vmid,
  locks: ({ vmid, newid }) => [`guest/${vmid}`, `guest/${newid}`],
})
  .step('reservation', {
    do: async ({ params, deps, task }) => {
      const [vmid, newid] = [asVmid(params.vmid), asVmid(params.newid)]
      await deps.guests.requireUnlocked(vmid)
      const { options } = await deps.guests.config(vmid, 'lxc')
      if (await deps.guests.isRunning(vmid)) throw runsStill(vmid)
      const plan = planClone(options, params)
      await deps.guests.reserve(newid, task.upid, 'lxc')
      return { ...plan, before: await volumesOf(deps.storage, newid) }
    },
    undo: ({ params, deps, task }) => deps.guests.release(asVmid(params.newid), task.upid),
  })
  .step('volumes', {
    do: ({ params, deps, done, log }) => {
      const { options, wishes } = done.reservation
      const context = { vmid: asVmid(params.newid), storage: deps.storage, host: deps.host, log }
      return makeMounts({ ...options, ...wishes }, Object.keys(wishes), context)
    },
    undo: async ({ params, deps, done, task }) => {
      const newid = asVmid(params.newid)
      if (!(await deps.guests.isMadeBy(newid, task.upid))) return
      await deps.guests.unwrite(newid, task.upid)
      await freeNewVolumes(deps, newid, done.reservation?.before ?? [])
    },
  })
  .step('files', {
    do: async ({ params, deps, done, log, warn, signal }) => {
      const { guests, host } = deps
      const [vmid, newid] = [asVmid(params.vmid), asVmid(params.newid)]
      const { options } = await guests.config(vmid, 'lxc')
      const copy = { ...done.reservation.options, ...done.volumes }
      await guests.withVolumes(vmid, options, (from) =>
        guests.withVolumes(newid, copy, async (to) => {
          for (const name of Object.keys(done.volumes)) {
            log(`copying ${name}`)
            await copyTree(host, { source: from[name] ?? '', target: to[name] ?? '', signal })
          }
          const told = toldOf(newid, copy, await factsOfNode())
          await setUpCopy(host, insideOf(copy, to.rootfs ?? '', warn), told)
        }),
      )
    },
    undo: async ({ params, deps }) => {
      await deps.guests.closeVolumes(asVmid(params.newid))
      // The lock is ours, and it did not run: what is open of the source was opened to read it.
      if (!(await deps.guests.isRunning(asVmid(params.vmid)))) await deps.guests.closeVolumes(asVmid(params.vmid))
    },
  })
  // No undo: giving back the reservation takes the configuration with it.
  .step('config', {
    do: async ({ params, deps, done, task }) => {
      const options = fresh({ ...done.reservation.options, ...done.volumes }, deps.random)
      await deps.guests.writeConfig(asVmid(params.newid), options, { owner: task.upid })
    },
  })
  .step(
    'pool',
    intoPool(({ newid }) => newid),
  )

function runsStill(vmid: Vmid): Fault {
  return new Fault('conflict', `CT ${vmid} is running: only a stopped container is cloned`, {
    remedy: `Stop it for that: hako ct shutdown ${vmid}.`,
  })
}

/** Options of the clone, and what its mounts are to be. @throws Fault `invalid` for what is the source's alone */
function planClone(
  from: Options,
  { vmid, hostname, description, storage }: CloneContainer,
): { readonly options: Options; readonly wishes: Record<string, string> } {
  const kept = Object.entries(from).filter(([name]) => !/^(unused\d+|lock|parent|template)$/.test(name))
  const named = { hostname: hostname ?? `Copy-of-${hostnameOf(from, vmid)}` }
  const options = { ...Object.fromEntries(kept), ...named, ...(description === undefined ? {} : { description }) }
  const wishes: Record<string, string> = {}
  for (const mount of mountsOf(options)) {
    const wish = wishOf(mount)
    // A folder of the node is the same for both.
    if (wish.kind === 'path') continue
    if (wish.kind === 'allocate') throw invalid({ vmid: `${mount.name} of CT ${vmid} has no volume yet` })
    wishes[mount.name] = emptyLike(mount, storage ?? splitVolumeId(wish.volid).storage)
  }
  return { options, wishes }
}

/** A wish for a volume of the same kind and size. */
export function emptyLike(mount: Mount, storage: string): string {
  const { size } = mount.values
  const bytes = typeof size === 'string' ? parseSize(size) : 0
  return printMount(mount, { volume: `${storage}:${bytes / GiB}`, size: undefined })
}
