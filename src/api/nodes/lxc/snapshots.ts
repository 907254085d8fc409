/** `/nodes/{node}/lxc/{vmid}/snapshot`: moments of a container it can be taken back to. */
import { asVmid } from '#base/ids.ts'
import { upid } from '#base/schema/standard.ts'
import { optionsToReply } from '#guests/lxc/options.ts'
import { deleteContainerSnapshot } from '#operations/guest/delete-snapshot.ts'
import { rollbackContainer } from '#operations/guest/rollback.ts'
import { requireNewSnapshot } from '#operations/guest/snapshot-config.ts'
import { snapshotContainer, volumesToTake } from '#operations/guest/snapshot-container.ts'
import { endpoint } from '../../call.ts'
import { maySnapshot, snapshotAt, snapshotEndpointsOf, snapshotNotes } from '../snapshots.ts'

export const containerSnapshotEndpoints = [
  ...snapshotEndpointsOf({
    kind: 'lxc',
    noun: 'container',
    command: 'ct',
    example: 200,
    toReply: optionsToReply,
    remove: deleteContainerSnapshot,
    rollBack: rollbackContainer,
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/lxc/{vmid}/snapshot',
    description: 'Take a snapshot of all volumes at one moment, and of the configuration.',
    proxyTo: 'node',
    params: { ...snapshotAt, description: snapshotNotes },
    permission: maySnapshot,
    returns: upid,
    cli: {
      command: ['ct', 'snapshot', 'create'],
      positional: ['vmid', 'snapname'],
      examples: ['ct snapshot create 200 before-upgrade'],
    },
    async handle({ vmid, snapname: name, description }, { services, start }) {
      const config = await services.guests.config(asVmid(vmid), 'lxc')
      requireNewSnapshot(asVmid(vmid), config, name, 'lxc')
      await volumesToTake(services.storage, config.options)
      return start(snapshotContainer, { vmid, name, description })
    },
  }),
]
