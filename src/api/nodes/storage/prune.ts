/** `/nodes/{node}/storage/{storage}/prunebackups`: which backups outlast pruning, and the pruning itself. */
import { retentionFormat } from '#base/retention.ts'
import { array, enumOf, integer, object, optional, propertyString, refine, string } from '#base/schema/schema.ts'
import { nodeName, storageId, upid, vmid } from '#base/schema/standard.ts'
import { planPruning, pruneBackups } from '#operations/backup/prune.ts'
import { all, any, anyone, check } from '#rest/endpoint.ts'
import { visibleMarks } from '#views/storage-content.ts'
import { endpoint } from '../../call.ts'
import { mayLook } from './storage.ts'

const params = {
  node: nodeName,
  storage: storageId,
  vmid: optional(refine(vmid, { description: 'Only backups of this guest.' })),
  type: optional(enumOf(['qemu', 'lxc'], { description: 'Only backups of this kind of guest.' })),
  'prune-backups': optional(
    propertyString(retentionFormat, {
      description: 'Which backups are kept; what the storage says when absent, and all when that says nothing.',
      maxLength: 1024,
    }),
  ),
}

export const pruneEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/storage/{storage}/prunebackups',
    description: 'What pruning would do: nothing is removed.',
    proxyTo: 'node',
    params,
    permission: mayLook,
    returns: array(
      object({
        volid: string({ description: 'Volume id of the backup.' }),
        vmid: optional(integer({ description: 'Guest it is of.' })),
        type: string({ description: 'Kind of guest.' }),
        ctime: integer({ description: 'When it was made, in seconds since 1970.' }),
        mark: enumOf(['keep', 'remove', 'protected', 'renamed'], { description: 'What would become of it.' }),
      }),
    ),
    async handle({ 'prune-backups': keep, ...where }, { services, may }) {
      return visibleMarks((await planPruning(services, { ...where, keep })).backups, may)
    },
  }),
  endpoint({
    method: 'DELETE',
    path: '/nodes/{node}/storage/{storage}/prunebackups',
    description: 'Remove the backups that need not be kept. Protected ones stay.',
    proxyTo: 'node',
    params,
    permission: anyone,
    alsoNeeds: {
      says: 'Datastore.Allocate on the storage; for one guest Datastore.AllocateSpace there with VM.Backup on the guest',
      of: ({ storage, vmid: guest }) => {
        const owner = check('Datastore.Allocate', `/storage/${storage}`)
        if (guest === undefined) return [owner]
        const user = all(check('Datastore.AllocateSpace', `/storage/${storage}`), check('VM.Backup', `/vms/${guest}`))
        return [any(owner, user)]
      },
    },
    returns: upid,
    cli: {
      command: ['backup', 'prune'],
      positional: ['storage'],
      destroys: 'storage',
      dryRun: { columns: ['mark', 'volid', 'vmid', 'ctime'], id: 'volid' },
      examples: [
        'backup prune local --prune-backups keep-last=3,keep-daily=7 --dry-run',
        'backup prune local --prune-backups keep-last=3,keep-daily=7 --confirm local',
      ],
    },
    async handle({ storage, vmid: guest, type, 'prune-backups': keep }, { services, start }) {
      const request = { storage, vmid: guest, type, keep }
      await planPruning(services, request)
      return start(pruneBackups, request)
    },
  }),
]
