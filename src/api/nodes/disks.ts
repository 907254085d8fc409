/** `/nodes/{node}/disks`: disks of a node. */
import { anything, array, boolean, enumOf, object, optional, string } from '#base/schema/schema.ts'
import { nodeName } from '#base/schema/standard.ts'
import { smartReport } from '#host/disks/block-devices.ts'
import { any, anyone, check } from '#rest/endpoint.ts'
import { diskItems, diskList } from '#views/disks.ts'
import { endpoint } from '../call.ts'

const flag = (description: string) => optional(boolean({ description, default: false }))

export const diskEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/disks',
    description: 'What there is to ask about disks.',
    proxyTo: 'node',
    params: { node: nodeName },
    permission: anyone,
    returns: array(object({ name: string() })),
    handle: () =>
      ['directory', 'initgpt', 'list', 'lvm', 'lvmthin', 'smart', 'wipedisk', 'zfs'].map((name) => ({ name })),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/disks/list',
    description: 'Disks of a node, and what they are used for.',
    proxyTo: 'node',
    params: {
      node: nodeName,
      'include-partitions': flag('Partitions too.'),
      skipsmart: flag('Do not ask disks how they are.'),
      type: optional(enumOf(['unused', 'journal_disks'], { description: 'Only disks one may take.' })),
    },
    permission: any(check('Sys.Audit', '/'), check('Sys.Audit', '/nodes/{node}')),
    returns: diskItems,
    cli: {
      command: ['disk', 'list'],
      positional: ['node'],
      columns: ['devpath', 'type', 'size', 'model', 'serial', 'used', 'health'],
      id: 'devpath',
    },
    handle: (params, { services }) =>
      diskList(services.host, {
        withPartitions: params['include-partitions'] ?? false,
        withHealth: params.skipsmart !== true,
        type: params.type,
      }),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/disks/smart',
    description: 'What a disk says of its health.',
    proxyTo: 'node',
    params: {
      node: nodeName,
      disk: string({ description: 'Path of the device.', pattern: /\/dev\/[a-zA-Z0-9/]+/, maxLength: 256 }),
      healthonly: optional(boolean({ description: 'Only the verdict.' })),
    },
    permission: check('Sys.Audit', '/'),
    returns: object({
      health: string({ description: 'PASSED, FAILED or UNKNOWN.' }),
      type: optional(string({ description: 'ata: attributes; text: text.' })),
      attributes: optional(array(anything)),
      text: optional(string({ description: 'Facts, one a line.' })),
    }),
    async handle({ disk, healthonly = false }, { services }) {
      const { attributes, ...report } = await smartReport(services.host, disk, healthonly)
      return { ...report, ...(attributes === undefined ? {} : { attributes: [...attributes] }) }
    },
  }),
]
