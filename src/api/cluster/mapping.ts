/** `/cluster/mapping`: names for devices and folders of the nodes. */
import { invalid } from '#base/fault.ts'
import { splitList } from '#base/schema/formats.ts'
import {
  array,
  boolean,
  enumOf,
  nothing,
  object,
  type Optional,
  optional,
  propertyString,
  record,
  string,
} from '#base/schema/schema.ts'
import { type MappingKind, mappingFormats, mappingKinds, type NamedMapping } from '#cluster/mappings.ts'
import { any, anyone, check } from '#rest/endpoint.ts'
import { checkMapping } from '#views/mapping-checks.ts'
import type { Call } from '../call.ts'
import { endpoint } from '../call.ts'

const seeing = ['Mapping.Use', 'Mapping.Modify', 'Mapping.Audit']
const id = string({ description: 'Name of the mapping.', format: 'pve-configid', maxLength: 64 })
const digest = optional(string({ description: 'Refuse when it no longer has this SHA-1.', maxLength: 64 }))
const toDelete = optional(string({ description: 'Settings to remove.', format: 'pve-configid-list', maxLength: 4096 }))
const description = optional(string({ description: 'Note.', maxLength: 4096 }))
const checkNode = optional(
  string({ description: 'Say what is wrong with each on this node.', format: 'pve-node', maxLength: 64 }),
)
const checks = array(
  object({
    severity: enumOf(['warning', 'error'], { description: 'How bad it is.' }),
    message: string({ description: 'What is wrong.' }),
  }),
)
const mapOf = (kind: MappingKind) =>
  array(propertyString(mappingFormats[kind], { maxLength: 8192 }), { description: 'What it means, node by node.' })

/** What the kinds have beside name, note and entries. */
const own = {
  pci: {
    mdev: optional(boolean({ description: 'Split the device; each guest gets a part.', default: false })),
    'live-migration-capable': optional(boolean({ description: 'Its state can be taken along.', default: false })),
  },
  usb: {},
  dir: {},
} as const

const nouns: Readonly<Record<MappingKind, string>> = { pci: 'PCI devices', usb: 'USB devices', dir: 'folders' }

function readersFor<const Kind extends MappingKind>(kind: Kind) {
  const path = `/cluster/mapping/${kind}` as const
  const one = `${path}/{id}` as const
  const mine = nouns[kind]
  const seeOne = any(...seeing.map((privilege) => check(privilege, `/mapping/${kind}/{id}`)))
  return [
    endpoint({
      method: 'GET',
      path,
      description: `Names for ${mine}, as far as the caller may see them.`,
      params: { 'check-node': checkNode },
      permission: anyone,
      returns: array(
        object(
          {
            id,
            description,
            map: array(string({ description: 'What it means on a node.' })),
            checks: optional(checks),
            error: optional(checks),
          },
          { additionalProperties: true },
        ),
      ),
      cli: { command: ['mapping', `list-${kind}`], columns: ['id', 'description', 'map'], id: 'id' },
      handle: async (params, call) => {
        const node = checkedNode(params['check-node'], call)
        const visible: NamedMapping[] = []
        for (const mapping of await call.services.mappings.list(kind)) {
          if (await maySee(kind, mapping.id, call)) visible.push(mapping)
        }
        return Promise.all(visible.map((mapping) => listed(kind, mapping, node)))
      },
    }),
    endpoint({
      method: 'GET',
      path: one,
      description: `What a name for ${mine} means.`,
      params: { id },
      permission: seeOne,
      returns: record(),
      cli: { command: ['mapping', `show-${kind}`], positional: ['id'] },
      async handle(params, { services }) {
        const found = await services.mappings.get(kind, params.id)
        return wire(found)
      },
    }),
  ] as const
}

function writersFor<const Kind extends MappingKind>(kind: Kind) {
  const path = `/cluster/mapping/${kind}` as const
  const one = `${path}/{id}` as const
  const place = `/mapping/${kind}`
  const map = mapOf(kind)
  const mine = nouns[kind]
  // What only one kind has is optional in any case, so for the others it is as if it were never given.
  const more = own[kind] as typeof own.pci
  // A USB mapping is always changed as a whole, as Proxmox VE has it.
  const changedMap = (kind === 'usb' ? map : optional(map)) as Optional<typeof map>
  return [
    endpoint({
      method: 'POST',
      path,
      description: `Give ${mine} a name.`,
      params: { id, description, map, ...more },
      permission: check('Mapping.Modify', place),
      returns: nothing,
      cli: { command: ['mapping', `create-${kind}`], positional: ['id'], examples: [exampleOf(kind)] },
      async handle({ id: name, ...mapping }, { services }) {
        await services.mappings.create(kind, name, mapping)
        return null
      },
    }),
    endpoint({
      method: 'PUT',
      path: one,
      description: `Change what a name for ${mine} means.`,
      params: { id, description, map: changedMap, ...more, delete: toDelete, digest },
      permission: check('Mapping.Modify', `${place}/{id}`),
      returns: nothing,
      cli: { command: ['mapping', `set-${kind}`], positional: ['id'] },
      async handle({ id: name, delete: list, digest: sha, ...set }, { services }) {
        await services.mappings.change(kind, name, set, { remove: splitList(list ?? ''), digest: sha })
        return null
      },
    }),
    endpoint({
      method: 'DELETE',
      path: one,
      description: `Take a name for ${mine} back; a guest that uses it does not start any more.`,
      params: { id },
      permission: check('Mapping.Modify', place),
      returns: nothing,
      cli: { command: ['mapping', `delete-${kind}`], positional: ['id'] },
      async handle(params, { services }) {
        await services.mappings.delete(kind, params.id)
        return null
      },
    }),
  ] as const
}

function exampleOf(kind: MappingKind): string {
  const entry = {
    pci: 'node=lab,path=0000:01:00.0,id=10de:2204',
    usb: 'node=lab,id=0951:1666',
    dir: 'node=lab,path=/srv/shared',
  }[kind]
  return `mapping create-${kind} first --map ${entry}`
}

function checkedNode(name: string | undefined, { services }: Call): string | undefined {
  if (name === undefined || name === services.settings.node) return name
  throw invalid({ 'check-node': `no such cluster node '${name}'` })
}

async function maySee(kind: MappingKind, name: string, { may }: Call): Promise<boolean> {
  const held = await Promise.all(seeing.map((privilege) => may(`/mapping/${kind}/${name}`, privilege)))
  return held.some(Boolean)
}

async function listed(kind: MappingKind, mapping: NamedMapping, node: string | undefined) {
  const found = node === undefined ? undefined : await checkMapping(kind, mapping, node)
  const said = found === undefined ? {} : kind === 'usb' ? { error: found } : { checks: found }
  return { ...wire(mapping), id: mapping.id, map: [...mapping.map], ...said }
}

/** Booleans as numbers: what is free in shape is sent as it is. */
function wire(mapping: NamedMapping): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(mapping).map(([name, value]) => [name, typeof value === 'boolean' ? Number(value) : value]),
  )
}

export const mappingEndpoints = [
  endpoint({
    method: 'GET',
    path: '/cluster/mapping',
    description: 'Kinds of things that can be given names.',
    params: {},
    permission: anyone,
    returns: array(object({ name: string({ description: 'Kind.' }) })),
    handle: () => mappingKinds.map((name) => ({ name })),
  }),
  ...readersFor('pci'),
  ...writersFor('pci'),
  ...readersFor('usb'),
  ...writersFor('usb'),
  ...readersFor('dir'),
  ...writersFor('dir'),
]
