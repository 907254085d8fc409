/** `/nodes/{node}/lxc`: the containers of a node. */
import { invalid } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { array, boolean, number, object, optional, string } from '#base/schema/schema.ts'
import { nodeName, storageId, upid } from '#base/schema/standard.ts'
import { requireOptions } from '#guests/lxc/change.ts'
import { createParams, optionParams, optionsFrom } from '#guests/lxc/options.ts'
import { cryptPassword } from '#host/system/crypt.ts'
import { createContainer } from '#operations/guest/create-container.ts'
import { destroyContainer } from '#operations/guest/destroy.ts'
import { restoreContainer } from '#operations/guest/restore-container.ts'
import { any, anyone, check, mayModify, type Permission, rootOnly } from '#rest/endpoint.ts'
import { containerItemOf, containerItems, visibleGuests } from '#views/guest-list.ts'
import type { Call } from '../../call.ts'
import { endpoint } from '../../call.ts'
import { toRestore } from '../backup-rights.ts'
import { guestAt } from '../qemu/at.ts'
import { toReadVolume } from '../qemu/rights.ts'
import { optionRightsSay, requireRoot, rightsToSet } from './rights.ts'

const children = [
  'clone',
  'config',
  'feature',
  'interfaces',
  'move_volume',
  'pending',
  'resize',
  'rrd',
  'rrddata',
  'snapshot',
  'spiceproxy',
  'status',
  'template',
  'termproxy',
  'vncproxy',
  'vncwebsocket',
]

/** Where volumes go when nobody says, and how large a root is then. */
const defaultStorage = 'local'
const defaultRootGiB = 4

export const containerGuestEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/lxc',
    description: 'Containers of a node, as far as the caller may see them.',
    proxyTo: 'node',
    params: { node: nodeName },
    permission: anyone,
    returns: containerItems,
    cli: {
      command: ['ct', 'list'],
      columns: ['vmid', 'name', 'status', 'cpus', 'cpu', 'maxmem', 'mem', 'uptime', 'tags'],
      id: 'vmid',
      examples: ['ct list', 'ct list -o json'],
    },
    isKept: true,
    handle: async (_, { services, may }) => (await visibleGuests(services.guests, may, 'lxc')).map(containerItemOf),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/lxc',
    description: 'Create a container from a template, or restore one from a backup.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      ...optionParams,
      unprivileged: createParams.unprivileged,
      ostemplate: string({
        description: 'Template, or with restore the backup: a volume, or for root the path of an archive.',
        maxLength: 255,
      }),
      storage: optional({
        ...storageId,
        description: 'Where the root goes when rootfs does not say; with restore, where all volumes go.',
        default: defaultStorage,
      }),
      password: optional(
        string({ description: 'Password of root inside.', minLength: 5, maxLength: 255, isSecret: true }),
      ),
      'ssh-public-keys': optional(
        string({ description: 'Keys root inside may log in with, one a line.', maxLength: 65_536 }),
      ),
      bwlimit: optional(
        number({
          description: 'KiB per second when restoring; a template is unpacked as fast as it can be read.',
          minimum: 0,
          maximum: 2 ** 40,
        }),
      ),
      force: optional(boolean({ description: 'Replace the stopped container that has this id; with restore only.' })),
      restore: optional(boolean({ description: 'The template is a backup: restore it.' })),
      'ignore-unpack-errors': optional(boolean({ description: 'Refused: keep what a damaged template holds.' })),
      unique: optional(boolean({ description: 'Give new MAC addresses.', requires: 'restore' })),
      template: optional(
        boolean({ description: 'Make it a template, which others are cloned from; not with restore.', default: false }),
      ),
      pool: optional(string({ description: 'Pool to put the guest in.', format: 'pve-poolid', maxLength: 255 })),
      start: optional(boolean({ description: 'Start it when it is made.', default: false })),
    },
    permission: any(check('VM.Allocate', '/vms/{vmid}'), check('VM.Allocate', '/pool/{pool}')),
    alsoNeeds: {
      says: `${optionRightsSay}; the right to read the template or backup, and to restore Datastore.AllocateSpace where volumes go; with a pool, rights on it do as well as those on the guest, and the right to change its permissions`,
      of: (params) => [
        ...orThroughPool(
          rightsToSet(params.vmid, params.restore === true ? optionsFrom(params) : withRoot(params)),
          params,
        ),
        ...(params.restore === true
          ? toRestore({ archive: params.ostemplate, storage: params.storage })
          : [params.ostemplate.startsWith('/') ? rootOnly : toReadVolume(params.ostemplate)]),
        ...(params.pool === undefined ? [] : [mayModify(`/pool/${params.pool}`)]),
      ],
    },
    returns: upid,
    cli: {
      command: ['ct', 'create'],
      destroys: 'vmid',
      destroysWhen: 'force',
      positional: ['vmid', 'ostemplate'],
      examples: [
        'ct create 200 local:vztmpl/debian-12.tar.zst --hostname web --rootfs local:8 --memory 512 --net0 name=eth0,bridge=vmbr0,ip=dhcp',
        'ct create 201 local:vztmpl/alpine.tar.xz --rootfs local:0 --start 1',
        'ct create 202 local:backup/ct/200/2026-01-01T00:00:00Z --restore 1 --unique 1',
      ],
    },
    handle: (params, call) => (params.restore === true ? restore(params, call) : create(params, call)),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/lxc/{vmid}',
    description: 'What is below this path.',
    proxyTo: 'node',
    params: guestAt,
    permission: anyone,
    returns: array(object({ subdir: string() })),
    handle: () => children.map((subdir) => ({ subdir })),
  }),
  endpoint({
    method: 'DELETE',
    path: '/nodes/{node}/lxc/{vmid}',
    description: 'Destroy a stopped container and its volumes.',
    proxyTo: 'node',
    params: {
      ...guestAt,
      force: optional(boolean({ description: 'Refused: destroy it while it runs.', default: false })),
      purge: optional(
        boolean({
          description: 'Also take it out of backup jobs that name it; permissions on it go in any case.',
          default: false,
        }),
      ),
      'destroy-unreferenced-disks': optional(
        boolean({ description: 'Also destroy volumes of the guest no option names.' }),
      ),
    },
    permission: check('VM.Allocate', '/vms/{vmid}'),
    returns: upid,
    cli: {
      command: ['ct', 'delete'],
      positional: ['vmid'],
      destroys: 'vmid',
      examples: ['ct delete 200 --confirm 200'],
    },
    async handle({ vmid, force, purge, 'destroy-unreferenced-disks': destroyUnreferencedDisks }, call) {
      await call.services.guests.config(asVmid(vmid), 'lxc')
      if (force === true && (await call.services.guests.isRunning(asVmid(vmid)))) {
        throw invalid({ force: 'a container that runs is not destroyed' }, { remedy: 'Stop it first.' })
      }
      return call.start(destroyContainer, { vmid, destroyUnreferencedDisks, purge })
    },
  }),
]

interface Wish {
  readonly vmid: number
  readonly ostemplate: string
  readonly storage?: string | undefined
  readonly unprivileged?: boolean | undefined
  readonly password?: string | undefined
  readonly 'ssh-public-keys'?: string | undefined
  readonly pool?: string | undefined
  readonly start?: boolean | undefined
  readonly rootfs?: string | undefined
  readonly restore?: boolean | undefined
  readonly unique?: boolean | undefined
  readonly bwlimit?: number | undefined
}

/** The options of the wish, with the root nobody asked for: every container has one. */
function withRoot({ storage = defaultStorage, ...params }: Wish) {
  const options = optionsFrom({ ...params })
  return options.rootfs === undefined ? { ...options, rootfs: `${storage}:${defaultRootGiB}` } : options
}

/** A guest that is made in a pool is not a member yet; what holds for members holds for it too. */
function orThroughPool(
  rights: readonly Permission[],
  { vmid, pool }: { readonly vmid: number; readonly pool?: string | undefined },
): Permission[] {
  if (pool === undefined) return [...rights]
  return rights.map((right) =>
    right.kind === 'check' && right.path === `/vms/${vmid}` ? any(right, { ...right, path: `/pool/${pool}` }) : right,
  )
}

const refused = ['force', 'ignore-unpack-errors'] as const
type Refused = { readonly [K in (typeof refused)[number] | 'template']?: boolean | undefined }

/** Options are those of the backup, but for the ones that are given. */
async function restore(params: Wish & Refused, call: Call) {
  const { vmid, ostemplate: archive, storage, unprivileged, force, unique, bwlimit, pool, start } = params
  const given = optionsFrom({ ...params })
  requireRoot(call, params, given)
  const errors: Record<string, string> = {}
  if (params.password !== undefined) errors.password = 'a restored container has the passwords it had'
  if (params['ssh-public-keys'] !== undefined) errors['ssh-public-keys'] = 'a restored container has the keys it had'
  if (params.template === true) errors.template = 'restore it first, and make a template of it then'
  if (params['ignore-unpack-errors'] === true) errors['ignore-unpack-errors'] = 'what is damaged is not restored'
  if (Object.keys(errors).length > 0) throw invalid(errors)
  const { guests, pools } = call.services
  if (pool !== undefined) await pools.get(pool)
  if (force !== true) await guests.requireFree(asVmid(vmid))
  const overrides = unprivileged === undefined ? given : { ...given, unprivileged: unprivileged ? '1' : '0' }
  return call.start(restoreContainer, { vmid, archive, storage, force, unique, pool, start, bwlimit, overrides })
}

async function create(params: Wish & Refused, call: Call) {
  const { vmid, ostemplate: template, unprivileged = true, password, 'ssh-public-keys': sshKeys, pool, start } = params
  const asTemplate = params.template === true
  if (asTemplate && start === true) throw invalid({ start: 'a template does not run' })
  const given = withRoot(params)
  requireRoot(call, params, given)
  if (params.force === true) throw invalid({ force: "only with 'restore': a template replaces no container" })
  const without = refused.find((name) => params[name] === true)
  if (without !== undefined) throw invalid({ [without]: 'this release makes containers from whole templates alone' })
  const { guests, host, pools } = call.services
  if (pool !== undefined) await pools.get(pool)
  await guests.requireFree(asVmid(vmid))
  const options = requireOptions({ ...given, unprivileged: unprivileged ? '1' : '0' })
  const passwordHash = password === undefined ? undefined : await cryptPassword(host, password)
  return call.start(createContainer, { vmid, template, options, passwordHash, sshKeys, pool, start, asTemplate })
}
