/** `/nodes/{node}/scan`: what there is to make a storage of. */
import { invalid } from '#base/fault.ts'
import { array, object, optional, string } from '#base/schema/schema.ts'
import { nodeName } from '#base/schema/standard.ts'
import { iscsiTargets } from '#host/web/iscsi.ts'
import { thinPools, volumeGroups } from '#host/disks/lvm.ts'
import { nfsExports } from '#host/web/nfs.ts'
import { smbShares } from '#host/web/smb.ts'
import { zfsPools } from '#host/disks/zfs.ts'
import { anyone, check } from '#rest/endpoint.ts'
import { endpoint } from '../call.ts'

const at = { node: nodeName }
const mayAllocate = check('Datastore.Allocate', '/storage')
const line = /[^\r\n]+/
/** As smbclient reads names, a percent sign would begin the password. */
const word = /[^\r\n%]+/

export const scanEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/scan',
    description: 'What there is to look for.',
    params: at,
    permission: anyone,
    returns: array(object({ method: string({ description: 'Name.' }) })),
    handle: () => ['cifs', 'iscsi', 'lvm', 'lvmthin', 'nfs', 'zfs'].map((method) => ({ method })),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/scan/cifs',
    description: 'Shares of an SMB server, as the node sees them.',
    proxyTo: 'node',
    params: {
      ...at,
      server: string({ description: 'Name or address of the server.', format: 'pve-storage-server', maxLength: 255 }),
      username: optional(string({ description: 'Who asks; a guest when absent.', pattern: word, maxLength: 256 })),
      password: optional(
        string({ description: 'Password of the one who asks.', pattern: line, maxLength: 1024, isSecret: true }),
      ),
      domain: optional(string({ description: 'Domain of the one who asks.', pattern: word, maxLength: 256 })),
    },
    permission: mayAllocate,
    returns: array(
      object({
        share: string({ description: 'Name of the share.' }),
        description: string({ description: 'What the server says of it.' }),
      }),
    ),
    cli: { command: ['node', 'scan', 'cifs'], positional: ['server'], columns: ['share', 'description'], id: 'share' },
    async handle({ server, username, password, domain }, { services }) {
      if (username === undefined && (password ?? domain) !== undefined) {
        throw invalid({ username: 'property is missing: a password or domain belongs to somebody' })
      }
      const login = username === undefined ? undefined : { username, password: password ?? '', domain }
      const shares = await smbShares(services.host, server, login)
      return shares.map(({ name, description }) => ({ share: name, description }))
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/scan/iscsi',
    description: 'Targets of an iSCSI portal, as the node sees them.',
    proxyTo: 'node',
    params: {
      ...at,
      portal: string({
        description: 'Name or address of the portal, with a port where it is not 3260.',
        format: 'pve-storage-portal-dns',
        maxLength: 262,
      }),
    },
    permission: mayAllocate,
    returns: array(
      object({
        target: string({ description: 'Name of the target.' }),
        portal: string({ description: 'Where it is reached; several with a comma between.' }),
      }),
    ),
    cli: { command: ['node', 'scan', 'iscsi'], positional: ['portal'], columns: ['target', 'portal'], id: 'target' },
    async handle({ portal }, { services }) {
      const targets = await iscsiTargets(services.host, portal)
      return targets.map(({ target, portals }) => ({ target, portal: portals.join(',') }))
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/scan/nfs',
    description: 'Exports of an NFS server, as the node sees them.',
    proxyTo: 'node',
    params: {
      ...at,
      server: string({ description: 'Name or address of the server.', format: 'pve-storage-server', maxLength: 255 }),
    },
    permission: mayAllocate,
    returns: array(
      object({
        path: string({ description: 'What is exported.' }),
        options: string({ description: 'To whom.' }),
      }),
    ),
    cli: { command: ['node', 'scan', 'nfs'], positional: ['server'], columns: ['path', 'options'], id: 'path' },
    async handle({ server }, { services }) {
      return (await nfsExports(services.host, server)).map(({ path, clients }) => ({ path, options: clients }))
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/scan/lvm',
    description: 'Volume groups of LVM.',
    proxyTo: 'node',
    params: at,
    permission: mayAllocate,
    returns: array(object({ vg: string({ description: 'Name of the volume group.' }) })),
    cli: { command: ['node', 'scan', 'lvm'], columns: ['vg'], id: 'vg' },
    handle: async (_, { services }) => (await volumeGroups(services.host)).map(({ name }) => ({ vg: name })),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/scan/lvmthin',
    description: 'Thin pools of a volume group.',
    proxyTo: 'node',
    params: {
      ...at,
      vg: string({
        description: 'Name of the volume group.',
        pattern: /[a-zA-Z0-9.+_][a-zA-Z0-9.+_-]+/,
        maxLength: 100,
      }),
    },
    permission: mayAllocate,
    returns: array(object({ lv: string({ description: 'Name of the pool.' }) })),
    cli: { command: ['node', 'scan', 'lvmthin'], positional: ['vg'], columns: ['lv'], id: 'lv' },
    async handle({ vg }, { services }) {
      const pools = await thinPools(services.host)
      return pools.filter(({ group }) => group === vg).map(({ name }) => ({ lv: name }))
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/scan/zfs',
    description: 'Pools of ZFS. A node whose kernel has no ZFS has none.',
    proxyTo: 'node',
    params: at,
    permission: mayAllocate,
    returns: array(object({ pool: string({ description: 'Name of the pool.' }) })),
    cli: { command: ['node', 'scan', 'zfs'], columns: ['pool'], id: 'pool' },
    handle: async (_, { services }) => (await zfsPools(services.host)).map(({ name }) => ({ pool: name })),
  }),
]
