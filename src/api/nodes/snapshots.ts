/** `/nodes/{node}/qemu|lxc/{vmid}/snapshot`: moments of a guest it can be taken back to. */
import { missing } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { array, boolean, integer, nothing, object, optional, record, string } from '#base/schema/schema.ts'
import { upid } from '#base/schema/standard.ts'
import type { Options, Snapshot } from '#guests/config.ts'
import type { GuestKind } from '#guests/kind.ts'
import type { deleteSnapshot } from '#operations/guest/delete-snapshot.ts'
import type { rollbackGuest } from '#operations/guest/rollback.ts'
import { requireSnapshot } from '#operations/guest/snapshot-config.ts'
import { anyone, check, checkAny } from '#rest/endpoint.ts'
import { type Call, endpoint } from '../call.ts'
import { guestAt } from './qemu/at.ts'

export const snapshotName = string({ description: 'Name of the snapshot.', format: 'pve-configid', maxLength: 40 })
export const snapshotNotes = optional(string({ description: 'Notes.', maxLength: 8192 }))
export const snapshotAt = { ...guestAt, snapname: snapshotName }
export const maySnapshot = check('VM.Snapshot', '/vms/{vmid}')

const snapshotItem = object({
  name: string({ description: 'Name; `current` is the guest as it is now.' }),
  description: string(),
  parent: optional(string({ description: 'The snapshot before it.' })),
  snaptime: optional(integer({ description: 'When it was taken, in seconds since 1970.', minimum: 0 })),
  vmstate: optional(boolean({ description: 'Memory was kept too; of virtual machines only.' })),
  running: optional(boolean({ description: 'The guest runs; of `current` only.' })),
  digest: optional(string({ description: 'SHA-1 of the configuration; of `current` only.' })),
})

/** What the calls of one kind of guest differ in. */
export interface SnapshotCalls<Kind extends GuestKind> {
  readonly kind: Kind
  readonly noun: 'virtual machine' | 'container'
  readonly command: 'vm' | 'ct'
  /** Number in examples. */
  readonly example: number
  readonly toReply: (options: Options) => Record<string, unknown>
  readonly remove: typeof deleteSnapshot
  readonly rollBack: typeof rollbackGuest
}

/** All but the one that takes a snapshot. */
export function snapshotEndpointsOf<const Kind extends GuestKind>(calls: SnapshotCalls<Kind>) {
  return [...listEndpoints(calls), ...notesEndpoints(calls), removal(calls), rollback(calls)]
}

function rootOf<const Kind extends GuestKind>(kind: Kind) {
  return `/nodes/{node}/${kind}/{vmid}/snapshot` as const
}

/** @throws Fault `missing` when there is no such guest or snapshot */
async function snapshotOf({ services }: Call, kind: GuestKind, vmid: number, name: string): Promise<Snapshot> {
  return requireSnapshot(await services.guests.config(asVmid(vmid), kind), name)
}

function listEndpoints<const Kind extends GuestKind>({ kind, noun, command }: SnapshotCalls<Kind>) {
  return [
    endpoint({
      method: 'GET',
      path: rootOf(kind),
      description: `Snapshots of a ${noun}, and where it stands among them now.`,
      proxyTo: 'node',
      params: guestAt,
      permission: check('VM.Audit', '/vms/{vmid}'),
      returns: array(snapshotItem),
      cli: {
        command: [command, 'snapshot', 'list'],
        positional: ['vmid'],
        columns: ['name', 'parent', 'snaptime', ...(kind === 'qemu' ? ['vmstate'] : []), 'description'],
        id: 'name',
      },
      async handle({ vmid }, { services }) {
        const { options, running, snapshots = {}, digest } = await services.guests.config(asVmid(vmid), kind)
        const parentOf = ({ parent }: Readonly<Record<string, string>>) => (parent === undefined ? {} : { parent })
        const stored = Object.entries(snapshots).toSorted(([, one], [, other]) => one.takenAt - other.takenAt)
        return [
          ...stored.map(([name, one]) => ({
            name,
            description: one.description,
            snaptime: one.takenAt,
            ...(kind === 'qemu' ? { vmstate: one.memory !== undefined } : {}),
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
      method: 'GET',
      path: `${rootOf(kind)}/{snapname}`,
      description: 'What is below this path.',
      params: snapshotAt,
      permission: anyone,
      returns: array(object({ cmd: string() })),
      handle: () => [{ cmd: 'config' }, { cmd: 'rollback' }],
    }),
  ]
}

function notesEndpoints<const Kind extends GuestKind>({ kind, noun, command, example, toReply }: SnapshotCalls<Kind>) {
  return [
    endpoint({
      method: 'GET',
      path: `${rootOf(kind)}/{snapname}/config`,
      description: `What the ${noun} was made of when the snapshot was taken.`,
      proxyTo: 'node',
      params: snapshotAt,
      permission: checkAny(['VM.Snapshot', 'VM.Snapshot.Rollback', 'VM.Audit'], '/vms/{vmid}'),
      returns: record(),
      cli: { command: [command, 'snapshot', 'config'], positional: ['vmid', 'snapname'] },
      handle: async ({ vmid, snapname }, call) => snapshotReply(toReply, await snapshotOf(call, kind, vmid, snapname)),
    }),
    endpoint({
      method: 'PUT',
      path: `${rootOf(kind)}/{snapname}/config`,
      description: 'Change the notes of a snapshot.',
      proxyTo: 'node',
      params: { ...snapshotAt, description: snapshotNotes },
      permission: maySnapshot,
      returns: nothing,
      cli: {
        command: [command, 'snapshot', 'set'],
        positional: ['vmid', 'snapname'],
        examples: [`${command} snapshot set ${example} before-upgrade --description "with the old kernel"`],
      },
      async handle({ vmid, snapname, description: text = '' }, call) {
        await snapshotOf(call, kind, vmid, snapname)
        await call.services.guests.changeSnapshots(asVmid(vmid), ({ options, snapshots }) => {
          const now = snapshots[snapname]
          if (!now) throw missing('snapshot', snapname)
          return { options, snapshots: { ...snapshots, [snapname]: { ...now, description: text } } }
        })
        return null
      },
    }),
  ]
}

function removal<const Kind extends GuestKind>({ kind, command, example, remove }: SnapshotCalls<Kind>) {
  return endpoint({
    method: 'DELETE',
    path: `${rootOf(kind)}/{snapname}`,
    description: 'Delete a snapshot; the guest stays as it is.',
    proxyTo: 'node',
    params: {
      ...snapshotAt,
      force: optional(boolean({ description: 'Forget it also when it cannot be removed from a disk.' })),
    },
    permission: maySnapshot,
    returns: upid,
    cli: {
      command: [command, 'snapshot', 'delete'],
      positional: ['vmid', 'snapname'],
      examples: [`${command} snapshot delete ${example} before-upgrade`],
    },
    async handle({ vmid, snapname: name, force }, call) {
      await snapshotOf(call, kind, vmid, name)
      return call.start(remove, { vmid, name, force })
    },
  })
}

function rollback<const Kind extends GuestKind>({ kind, noun, command, example, rollBack }: SnapshotCalls<Kind>) {
  return endpoint({
    method: 'POST',
    path: `${rootOf(kind)}/{snapname}/rollback`,
    description: `Take a ${noun} back to a snapshot. What it has become since then is lost.`,
    proxyTo: 'node',
    params: {
      ...snapshotAt,
      start: optional(
        boolean({
          description:
            kind === 'qemu' ? 'Start it afterwards; with kept memory it goes on anyway.' : 'Start it afterwards.',
          default: false,
        }),
      ),
    },
    permission: checkAny(['VM.Snapshot', 'VM.Snapshot.Rollback'], '/vms/{vmid}'),
    returns: upid,
    cli: {
      command: [command, 'rollback'],
      positional: ['vmid', 'snapname'],
      examples: [`${command} rollback ${example} before-upgrade --start 1`],
    },
    async handle({ vmid, snapname: name, start }, call) {
      await snapshotOf(call, kind, vmid, name)
      return call.start(rollBack, { vmid, name, start })
    },
  })
}

export function snapshotReply(
  toReply: (options: Options) => Record<string, unknown>,
  { options, takenAt, description: text, memory }: Snapshot,
) {
  return {
    ...toReply(options),
    snaptime: takenAt,
    ...(text === '' ? {} : { description: text }),
    ...(memory?.volume === undefined ? {} : { vmstate: memory.volume }),
  }
}
