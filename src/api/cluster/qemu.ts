/** `/cluster/qemu`: processor models the owner of the cluster made, and the flags they can be made of. */
import { invalid, missing } from '#base/fault.ts'
import { splitList } from '#base/schema/formats.ts'
import { array, boolean, enumOf, integer, nothing, object, optional, string } from '#base/schema/schema.ts'
import type { CpuModelValues, NamedCpuModel } from '#cluster/cpu-models.ts'
import { customPrefix } from '#guests/qemu/cpu.ts'
import { processorModels } from '#host/qemu/qemu-abilities.ts'
import { any, anyone, check, checkAny } from '#rest/endpoint.ts'
import { maySeeCpuModel, seeingCpuModels } from '#views/cpu-models.ts'
import { flagsOf, processorFlags } from '#views/processor-flags.ts'
import type { Call } from '../call.ts'
import { endpoint } from '../call.ts'

const one = '/cluster/qemu/custom-cpu-models/{cputype}'
const cputype = string({ description: 'Name of the model.', format: 'pve-configid', maxLength: 40 })

const settings = {
  flags: optional(
    string({
      description: 'Flags to add or remove, as `+aes;-pcid`.',
      pattern: /[+-][a-zA-Z0-9\-_.]+(?:;[+-][a-zA-Z0-9\-_.]+)*/,
      maxLength: 1024,
    }),
  ),
  'guest-phys-bits': optional(integer({ description: 'Address bits the guest may use.', minimum: 32, maximum: 64 })),
  hidden: optional(boolean({ description: 'Hide that it is a virtual machine.', default: false })),
  'hv-vendor-id': optional(
    string({ description: 'Vendor Windows is told.', pattern: /[a-zA-Z0-9]{1,12}/, maxLength: 12 }),
  ),
  level: optional(integer({ description: 'Highest CPUID level.', minimum: 0, maximum: 4_294_967_295 })),
  'phys-bits': optional(string({ description: 'Address bits, or `host`.', pattern: /host|[0-9]{1,2}/, maxLength: 4 })),
} as const
const reported = string({
  description: 'Model it is made from.',
  default: 'kvm64',
  pattern: /[A-Za-z0-9][\w.-]*/,
  maxLength: 60,
})

const reply = object({
  cputype: string({ description: 'Name of the model, as a guest asks for it.' }),
  'reported-model': optional(reported),
  ...settings,
  digest: string({ description: 'SHA-1 of the model.' }),
})

export const cpuModelEndpoints = [
  endpoint({
    method: 'GET',
    path: '/cluster/qemu',
    description: 'What there is to ask about the processors of guests.',
    params: {},
    permission: anyone,
    returns: array(object({ name: string({ description: 'Name.' }) })),
    handle: () => ['cpu-flags', 'custom-cpu-models'].map((name) => ({ name })),
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/qemu/cpu-flags',
    description: 'Flags of processors QEMU knows, and which nodes have them.',
    params: {
      accel: optional(enumOf(['kvm', 'tcg'], { description: 'By hardware or in software.', default: 'kvm' })),
      arch: optional(enumOf(['x86_64', 'aarch64'], { description: 'Architecture; that of the node when absent.' })),
    },
    permission: any(check('Sys.Audit', '/nodes'), checkAny(seeingCpuModels, '/mapping/cpu')),
    returns: processorFlags,
    cli: { command: ['cpu-model', 'flags'], columns: ['name', 'supported-on'], id: 'name' },
    handle: ({ arch }, { services }) => flagsOf(services, arch),
  }),
  endpoint({
    method: 'GET',
    path: '/cluster/qemu/custom-cpu-models',
    description: 'Processor models of the cluster’s owner, as far as the caller may see them.',
    params: {},
    permission: anyone,
    returns: array(reply),
    cli: { command: ['cpu-model', 'list'], columns: ['cputype', 'reported-model', 'flags'], id: 'cputype' },
    async handle(_, call) {
      const visible: NamedCpuModel[] = []
      for (const model of await call.services.cpuModels.list()) {
        if (await maySeeCpuModel(model.name, call)) visible.push(model)
      }
      return visible.map(wire)
    },
  }),
  endpoint({
    method: 'POST',
    path: '/cluster/qemu/custom-cpu-models',
    description: 'Make a processor model from one QEMU knows.',
    params: { cputype, 'reported-model': reported, ...settings },
    permission: check('Mapping.Modify', '/mapping/cpu'),
    returns: nothing,
    cli: {
      command: ['cpu-model', 'create'],
      positional: ['cputype'],
      examples: ["cpu-model create no-tsx --reported-model max --flags='-rtm;-hle'"],
    },
    async handle({ cputype: name, ...values }, call) {
      await requireKnown(values, call)
      await call.services.cpuModels.create(plain(name), given(values))
      return null
    },
  }),
  endpoint({
    method: 'GET',
    path: one,
    description: 'A processor model of the cluster’s owner.',
    params: { cputype },
    permission: any(...seeingCpuModels.map((privilege) => check(privilege, '/mapping/cpu/{cputype}'))),
    returns: reply,
    cli: { command: ['cpu-model', 'show'], positional: ['cputype'] },
    async handle({ cputype: name }, { services }) {
      const found = await services.cpuModels.find(plain(name))
      if (!found) throw missing('custom CPU model', name)
      return wire(found)
    },
  }),
  endpoint({
    method: 'PUT',
    path: one,
    description: 'Change a processor model; guests get it at their next start.',
    params: {
      cputype,
      'reported-model': optional(reported),
      ...settings,
      delete: optional(string({ description: 'Settings to remove.', format: 'pve-configid-list', maxLength: 1024 })),
      digest: optional(string({ description: 'Refuse when it no longer has this SHA-1.', maxLength: 64 })),
    },
    permission: check('Mapping.Modify', '/mapping/cpu/{cputype}'),
    returns: nothing,
    cli: { command: ['cpu-model', 'set'], positional: ['cputype'] },
    async handle({ cputype: name, delete: list, digest, ...values }, call) {
      const remove = splitList(list ?? '')
      if (remove.includes('reported-model')) throw invalid({ delete: "'reported-model' cannot be deleted" })
      await requireKnown(values, call)
      await call.services.cpuModels.change(plain(name), given(values), { remove, digest })
      return null
    },
  }),
  endpoint({
    method: 'DELETE',
    path: one,
    description: 'Delete a processor model; guests that ask for it do not start any more.',
    params: { cputype },
    permission: check('Mapping.Modify', '/mapping/cpu/{cputype}'),
    returns: nothing,
    cli: { command: ['cpu-model', 'delete'], positional: ['cputype'] },
    async handle({ cputype: name }, { services }) {
      await services.cpuModels.delete(plain(name))
      return null
    },
  }),
]

/** With or without the prefix guests use. */
function plain(name: string): string {
  return name.startsWith(customPrefix) ? name.slice(customPrefix.length) : name
}

function given(values: Readonly<Record<string, string | number | boolean | undefined>>): CpuModelValues {
  const entries = Object.entries(values).filter((entry): entry is [string, string | number | boolean] => {
    return entry[1] !== undefined
  })
  return Object.fromEntries(entries)
}

/** @throws Fault `invalid` for a model or flag QEMU does not know */
async function requireKnown(
  values: Readonly<Record<string, string | number | boolean | undefined>>,
  { services }: Call,
): Promise<void> {
  const { models, flags } = await processorModels(services.host, 'x86_64')
  const model = values['reported-model']
  if (model !== undefined && model !== 'host' && !models.includes(String(model))) {
    throw invalid({ 'reported-model': `this node's QEMU does not know the model '${model}'` })
  }
  if (values['guest-phys-bits'] !== undefined) {
    throw invalid({ 'guest-phys-bits': 'it is not known to the QEMU of this release: leave it out' })
  }
  const words = values.flags === undefined ? [] : String(values.flags).split(';')
  const known = new Set(flags.map((flag) => flag.replaceAll('_', '-')))
  const wrong = words.map((flag) => flag.slice(1)).find((flag) => !known.has(flag.replaceAll('_', '-')))
  if (wrong !== undefined) throw invalid({ flags: `this node's QEMU does not know the flag '${wrong}'` })
}

function wire({ name, values, digest }: NamedCpuModel) {
  return { ...values, cputype: `${customPrefix}${name}`, digest }
}
