/** `/nodes/{node}/qemu/{vmid}/snapshot`: moments of a virtual machine it can be taken back to. */
import { asVmid } from '#base/ids.ts'
import { boolean, optional } from '#base/schema/schema.ts'
import { upid } from '#base/schema/standard.ts'
import { optionsToReply } from '#guests/qemu/options.ts'
import { deleteSnapshot } from '#operations/guest/delete-snapshot.ts'
import { rollbackGuest } from '#operations/guest/rollback.ts'
import { requireNewSnapshot } from '#operations/guest/snapshot-config.ts'
import { snapshotGuest } from '#operations/guest/snapshot.ts'
import { endpoint } from '../../call.ts'
import { maySnapshot, snapshotAt, snapshotEndpointsOf, snapshotNotes } from '../snapshots.ts'

export const snapshotEndpoints = [
  ...snapshotEndpointsOf({
    kind: 'qemu',
    noun: 'virtual machine',
    command: 'vm',
    example: 100,
    toReply: optionsToReply,
    remove: deleteSnapshot,
    rollBack: rollbackGuest,
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu/{vmid}/snapshot',
    description: 'Take a snapshot of all disks at one moment, of the configuration, and if wanted of the memory.',
    proxyTo: 'node',
    params: {
      ...snapshotAt,
      description: snapshotNotes,
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
      requireNewSnapshot(asVmid(vmid), await call.services.guests.config(asVmid(vmid)), name)
      return call.start(snapshotGuest, { vmid, name, description: text, memory: vmstate })
    },
  }),
]
