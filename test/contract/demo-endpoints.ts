/** A small API with one endpoint of each kind, for testing what reads endpoints. */
import { Fault, missing } from '#base/fault.ts'
import {
  array,
  boolean,
  enumOf,
  indexed,
  integer,
  nothing,
  number,
  object,
  optional,
  propertyString,
  string,
} from '#base/schema/schema.ts'
import { nodeName, storageId, upid, vmid } from '#base/schema/standard.ts'
import type { CallFacts } from '#rest/dispatch.ts'
import {
  all,
  any,
  anyone,
  check,
  checkAny,
  Download,
  type Endpoint,
  endpointsOf,
  mayModify,
  Reply,
  rootOnly,
  self,
  world,
} from '#rest/endpoint.ts'

const endpoint = endpointsOf<CallFacts>()

const netFormat = {
  model: { schema: enumOf(['virtio', 'e1000']), isDefaultKey: true },
  macaddr: { schema: optional(string({ format: 'mac-addr' })) },
  virtio: { schema: string(), alias: 'macaddr', keyAlias: 'model' },
  bridge: { schema: optional(string({ format: 'pve-bridge-id', maxLength: 15 })) },
  firewall: { schema: optional(boolean()) },
}

export const demoEndpoints = [
  endpoint({
    method: 'GET',
    path: '/version',
    description: 'Version of the node.',
    params: {},
    permission: anyone,
    returns: object({ version: string(), release: string(), repoid: string() }),
    handle: () => ({ version: '9.2.3', release: '9.2', repoid: 'feedc0de', secret: 'never sent' }),
  }),
  endpoint({
    method: 'GET',
    path: '/whoami',
    description: 'Who the caller is.',
    params: {},
    permission: anyone,
    returns: object({ authid: string(), remote: string() }),
    handle: (_, { who, remoteAddress }) => ({ authid: who?.authId ?? '', remote: remoteAddress }),
  }),
  endpoint({
    method: 'GET',
    path: '/access/domains',
    description: 'Realms.',
    params: {},
    permission: world,
    returns: array(object({ realm: string() })),
    handle: () => [{ realm: 'pam' }, { realm: 'pve' }],
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/qemu/{vmid}/status/current',
    description: 'State of a guest.',
    params: { node: nodeName, vmid },
    permission: check('VM.Audit', '/vms/{vmid}'),
    proxyTo: 'node',
    returns: object({
      status: string(),
      uptime: integer(),
      cpu: number(),
      template: optional(boolean()),
      name: string(),
    }),
    handle: ({ vmid: id }) => {
      if (id === 404) throw new Fault('missing', "Configuration file 'nodes/demo/qemu-server/404.conf' does not exist")
      return { status: 'running', uptime: 12.75, cpu: 0.25, template: true, name: `guest-${id}` }
    },
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/qemu',
    description: 'Create a guest.',
    params: {
      node: nodeName,
      vmid,
      pool: optional(string({ format: 'pve-poolid', maxLength: 64 })),
      memory: optional(integer({ minimum: 16, maximum: 4_194_304 })),
      start: optional(boolean()),
      storage: optional(storageId),
      tags: optional(string({ format: 'pve-tag-list', maxLength: 200 })),
      ostype: optional(enumOf(['l26', 'other'])),
      cpulimit: optional(number({ minimum: 0, maximum: 128 })),
      description: optional(string({ maxLength: 8192 })),
      ...indexed('net', 4, propertyString(netFormat, { maxLength: 256 })),
    },
    permission: any(check('VM.Allocate', '/vms/{vmid}'), check('VM.Allocate', '/pool/{pool}')),
    alsoNeeds: {
      says: 'Datastore.AllocateSpace on the storage',
      of: ({ storage }) => (storage === undefined ? [] : [check('Datastore.AllocateSpace', `/storage/${storage}`)]),
    },
    proxyTo: 'node',
    returns: upid,
    handle: ({ node, vmid: id }, { who }) => `UPID:${node}:0000ABCD:00112233:65000000:qmcreate:${id}:${who?.user}:`,
  }),
  endpoint({
    method: 'PUT',
    path: '/echo/{id}',
    description: 'Give back what was understood.',
    params: {
      id: string({ pattern: /[a-z]+\d*/, maxLength: 20 }),
      text: optional(string({ maxLength: 1000 })),
      count: optional(integer({ minimum: 0, maximum: 10 })),
      flag: optional(boolean()),
      list: optional(array(string({ maxLength: 10 }))),
    },
    permission: check(['Sys.Audit', 'Sys.Modify'], '/'),
    returns: object({
      id: string(),
      text: optional(string()),
      count: optional(integer()),
      flag: optional(boolean()),
      list: optional(array(string())),
    }),
    handle: (params) => params,
  }),
  endpoint({
    method: 'DELETE',
    path: '/storage/{storage}/content/{volume*}',
    description: 'Delete a volume.',
    params: {
      storage: storageId,
      volume: string({ maxLength: 200 }),
      delay: optional(integer({ minimum: 1, maximum: 30 })),
    },
    permission: checkAny(['Datastore.Allocate', 'Datastore.AllocateSpace'], '/storage/{storage}'),
    returns: string(),
    handle: ({ volume }) => volume,
  }),
  endpoint({
    method: 'PUT',
    path: '/access/acl',
    description: 'Change an ACL.',
    params: { path: string({ format: 'pve-acl-path', maxLength: 256 }) },
    permission: mayModify('{path}'),
    returns: nothing,
    handle: () => null,
  }),
  endpoint({
    method: 'GET',
    path: '/access/users/{userid}',
    description: 'A user.',
    params: { userid: string({ format: 'pve-userid', maxLength: 64 }) },
    permission: any(self('userid'), check('User.Modify', '/access/groups')),
    returns: object({ enable: boolean() }),
    handle: () => ({ enable: true }),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/secret',
    description: 'For root alone.',
    params: { node: nodeName },
    permission: all(rootOnly, check('Sys.Modify', '/nodes/{node}')),
    refusesTokens: true,
    returns: nothing,
    handle: () => null,
  }),
  endpoint({
    method: 'GET',
    path: '/tasks',
    description: 'A list with what stands beside it.',
    params: { start: optional(integer({ minimum: 0, maximum: 1_000_000 })) },
    permission: check('Sys.Audit', '/'),
    returns: array(object({ n: integer() })),
    handle: ({ start = 0 }) => new Reply([{ n: start }], { total: 1234, changes: 'a\nb' }),
  }),
  endpoint({
    method: 'GET',
    path: '/log',
    description: 'A download.',
    params: {},
    permission: check('Sys.Audit', '/'),
    returns: string(),
    handle: () => new Download('task "log".txt', 'line 1\nline 2\n') as never,
  }),
  endpoint({
    method: 'GET',
    path: '/broken',
    description: 'Fails in a way chosen by the caller.',
    params: {
      how: enumOf(['bug', 'multiline', 'conflict', 'badreply']),
    },
    permission: rootOnly,
    returns: object({ count: integer() }),
    handle: ({ how }) => {
      if (how === 'bug') throw new TypeError('undefined is not a function, password=hunter2')
      if (how === 'multiline') throw new Fault('failed', 'erste Zeile – „schön“\r\nX-Injected: 1\nthird')
      if (how === 'conflict') throw new Fault('conflict', 'VM 100 already running', { remedy: 'Stop it first.' })
      return { count: 'many' as unknown as number }
    },
  }),
  endpoint({
    method: 'GET',
    path: '/large',
    description: 'A reply worth compressing.',
    params: { size: integer({ minimum: 0, maximum: 10_000_000 }) },
    permission: anyone,
    returns: string(),
    handle: ({ size }) => 'abcdefgh'.repeat(Math.ceil(size / 8)).slice(0, size),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/storage/{storage}/upload',
    description: 'Upload an image.',
    params: {
      node: nodeName,
      storage: storageId,
      content: enumOf(['iso', 'vztmpl', 'import']),
      filename: string({ maxLength: 255 }),
      tmpfilename: optional(string({ maxLength: 4096 })),
      checksum: optional(string({ maxLength: 128, requires: 'checksum-algorithm' })),
      'checksum-algorithm': optional(enumOf(['md5', 'sha256'])),
    },
    permission: check('Datastore.AllocateTemplate', '/storage/{storage}'),
    isUpload: true,
    proxyTo: 'node',
    returns: object({ filename: string(), tmpfilename: string() }),
    handle: ({ storage, filename, tmpfilename = '' }) => {
      if (storage === 'broken') throw missing('storage', storage)
      return { filename, tmpfilename }
    },
  }),
] as const satisfies readonly Endpoint<CallFacts>[]
