/** `/nodes/{node}/qemu/{vmid}/snapshot`: moments of a virtual machine it can be taken back to. */
import { missing } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { array, boolean, integer, nothing, object, optional, record, string } from '#base/schema/schema.ts'
import { upid } from '#base/schema/standard.ts'
import type { GuestConfig, Snapshot } from '#guests/config.ts'
import { optionsToReply } from '#guests/qemu/options.ts'
import { deleteSnapshot } from '#operations/guest/delete-snapshot.ts'
import { rollbackGuest } from '#operations/guest/rollback.ts'
import { requireNewSnapshot } from '#operations/guest/snapshot-config.ts'
import { snapshotGuest } from '#operations/guest/snapshot.ts'
import { anyone, check, checkAny } from '#rest/endpoint.ts'
import type { Call } from '../../call.ts'
import { endpoint } from '../../call.ts'
import { guestAt } from './at.ts'

export const snapshotName = string({ description: 'Name of the snapshot.', format: 'pve-configid', maxLength: 40 })
const description = optional(string({ description: 'Notes.', maxLength: 8192 }))
const snapshotAt = { ...guestAt, snapname: snapshotName }
const maySnapshot = check('VM.Snapshot', '/vms/{vmid}')
const root = '/nodes/{node}/qemu/{vmid}/snapshot'

const snapshotItem = object({
  name: string({ description: 'Name; `current` is the guest as it is now.' }),
  description: string(),
  parent: optional(string({ description: 'The snapshot before it.' })),
  snaptime: optional(integer({ description: 'When it was taken, in seconds since 1970.', minimum: 0 })),
  vmstate: optional(boolean({ description: 'Memory was kept too.' })),
  running: optional(boolean({ description: 'The guest runs; of `current` only.' })),
  digest: optional(string({ description: 'SHA-1 of the configuration; of `current` only.' })),
})

/** @throws Fault `missing` */
async function configAt({ services }: Call, vmid: number): Promise<GuestConfig> {
  return services.guests.config(asVmid(vmid))
}

/** @throws Fault `missing` when there is no such guest or snapshot */
async function snapshotOf(call: Call, vmid: number, name: string): Promise<Snapshot> {
  const snapshot = (await configAt(call, vmid)).snapshots?.[name]
  if (!snapshot) throw missing('snapshot', name)
  return snapshot
}

export function snapshotReply({ options, takenAt, description: text, memory }: Snapshot) {
  return {
    ...optionsToReply(options),
    snaptime: takenAt,
    ...(text === '' ? {} : { description: text }),
    ...(memory?.volume === undefined ? {} : { vmstate: memory.volume }),
  }
}

export const snapshotEndpoints = [
  endpoint({
    method: 'GET',
    path: root,
    description: 'Snapshots of a virtual machine, and where it stands among them now.',
    proxyTo: 'node',
    params: guestAt,
    permission: check('VM.Audit', '/vms/{vmid}'),
    returns: array(snapshotItem),
    cli: {
      command: ['vm', 'snapshot', 'list'],
      positional: ['vmid'],
      columns: ['name', 'parent', 'snaptime', 'vmstate', 'description'],
      id: 'name',
    },
    async handle({ vmid }, call) {
      const { options, running, snapshots = {}, digest } = await configAt(call, vmid)
      const parentOf = ({ parent }: Readonly<Record<string, string>>) => (parent === undefined ? {} : { parent })
      const stored = Object.entries(snapshots).toSorted(([, one], [, other]) => one.takenAt - other.takenAt)
      return [
        ...stored.map(([name, one]) => ({
          name,
          description: one.description,
          snaptime: one.takenAt,
          vmstate: one.memory !== undefined,
          ...parentOf(one.options),
        })),
        {
          name: 'current',
          description: 'You are here!',
          running: running !== undefined,
          digest,
          ...parentOf(options),
        },
      ]
    },
  }),
  endpoint({
    method: 'POST',
    path: root,
    description: 'Take a snapshot of all disks at one moment, of the configuration, and if wanted of the memory.',
    proxyTo: 'node',
    params: {
      ...snapshotAt,
      description,
      vmstate: optional(boolean({ description: 'Keep the memory of a running guest too.' })),
    },
    permission: maySnapshot,
    returns: upid,
    cli: {
      command: ['vm', 'snapshot', 'create'],
      positional: ['vmid', 'snapname'],
      examples: ['vm snapshot create 100 before-upgrade', 'vm snapshot create 100 before-upgrade --vmstate 1'],
    },
    async handle({ vmid, snapname: name, description: text, vmstate }, call) {
      requireNewSnapshot(asVmid(vmid), await configAt(call, vmid), name)
      return call.start(snapshotGuest, { vmid, name, description: text, memory: vmstate })
    },
  }),
  endpoint({
    method: 'GET',
    path: `${root}/{snapname}`,
    description: 'What is below this path.',
    params: snapshotAt,
    permission: anyone,
    returns: array(object({ cmd: string() })),
    handle: () => [{ cmd: 'config' }, { cmd: 'rollback' }],
  }),
  endpoint({
    method: 'DELETE',
    path: `${root}/{snapname}`,
    description: 'Delete a snapshot; the guest stays as it is.',
    proxyTo: 'node',
    params: {
      ...snapshotAt,
      force: optional(boolean({ description: 'Forget it also when it cannot be removed from a disk.' })),
    },
    permission: maySnapshot,
    returns: upid,
    cli: {
      command: ['vm', 'snapshot', 'delete'],
      positional: ['vmid', 'snapname'],
      examples: ['vm snapshot delete 100 before-upgrade'],
    },
    async handle({ vmid, snapname: name, force }, call) {
      await snapshotOf(call, vmid, name)
      return call.start(deleteSnapshot, { vmid, name, force })
    },
  }),
  endpoint({
    method: 'GET',
    path: `${root}/{snapname}/config`,
    description: 'What the virtual machine was made of when the snapshot was taken.',
    proxyTo: 'node',
    params: snapshotAt,
    permission: checkAny(['VM.Snapshot', 'VM.Snapshot.Rollback', 'VM.Audit'], '/vms/{vmid}'),
    returns: record(),
    cli: { command: ['vm', 'snapshot', 'config'], positional: ['vmid', 'snapname'] },
    handle: async ({ vmid, snapname }, call) => snapshotReply(await snapshotOf(call, vmid, snapname)),
  }),
  endpoint({
    method: 'PUT',
    path: `${root}/{snapname}/config`,
    description: 'Change the notes of a snapshot.',
    proxyTo: 'node',
    params: { ...snapshotAt, description },
    permission: maySnapshot,
    returns: nothing,
    cli: {
      command: ['vm', 'snapshot', 'set'],
      positional: ['vmid', 'snapname'],
      examples: ['vm snapshot set 100 before-upgrade --description "with the old kernel"'],
    },
    async handle({ vmid, snapname, description: text = '' }, call) {
      await snapshotOf(call, vmid, snapname)
      await call.services.guests.changeSnapshots(asVmid(vmid), ({ options, snapshots }) => {
        const now = snapshots[snapname]
        if (!now) throw missing('snapshot', snapname)
        return { options, snapshots: { ...snapshots, [snapname]: { ...now, description: text } } }
      })
      return null
    },
  }),
  endpoint({
    method: 'POST',
    path: `${root}/{snapname}/rollback`,
    description: 'Take a virtual machine back to a snapshot. What it has become since then is lost.',
    proxyTo: 'node',
    params: {
      ...snapshotAt,
      start: optional(
        boolean({ description: 'Start it afterwards; with kept memory it goes on anyway.', default: false }),
      ),
    },
    permission: checkAny(['VM.Snapshot', 'VM.Snapshot.Rollback'], '/vms/{vmid}'),
    returns: upid,
    cli: {
      command: ['vm', 'rollback'],
      positional: ['vmid', 'snapname'],
      examples: ['vm rollback 100 before-upgrade --start 1'],
    },
    async handle({ vmid, snapname: name, start }, call) {
      await snapshotOf(call, vmid, name)
      return call.start(rollbackGuest, { vmid, name, start })
    },
  }),
]
