/** `/nodes/{node}/capabilities`: what guests of a node can be made of. */
import { array, boolean, enumOf, object, optional, string } from '#base/schema/schema.ts'
import { nodeName } from '#base/schema/standard.ts'
import { machineTypes, processorModels } from '#host/qemu/qemu-abilities.ts'
import { customPrefix } from '#guests/qemu/cpu.ts'
import { anyone, check } from '#rest/endpoint.ts'
import { maySeeCpuModel } from '#views/cpu-models.ts'
import { flagsOf, processorFlags } from '#views/processor-flags.ts'
import { vendorOf } from '#views/processor-vendor.ts'
import { endpoint } from '../call.ts'

const arch = optional(enumOf(['x86_64', 'aarch64'], { description: 'Architecture; that of the node when absent.' }))
const at = { node: nodeName }
const index = array(object({ name: string({ description: 'Name.' }) }))

/** The architecture of this machine, as QEMU spells it. */
const ownArch = (): string => (process.arch === 'arm64' ? 'aarch64' : 'x86_64')

export const capabilityEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/capabilities',
    description: 'Kinds of guests.',
    proxyTo: 'node',
    params: at,
    permission: anyone,
    returns: index,
    handle: () => [{ name: 'qemu' }],
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/capabilities/qemu',
    description: 'What there is to ask about QEMU.',
    proxyTo: 'node',
    params: at,
    permission: anyone,
    returns: index,
    handle: () => ['cpu', 'cpu-flags', 'machines', 'migration'].map((name) => ({ name })),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/capabilities/qemu/cpu',
    description: 'Models of processors QEMU knows.',
    params: { ...at, arch },
    permission: anyone,
    returns: array(
      object({
        name: string({ description: 'Name of the model.' }),
        custom: boolean({ description: 'Defined by the owner of the cluster.' }),
        vendor: string({ description: 'Vendor the guest sees; `default` for that of the node.' }),
      }),
    ),
    cli: { command: ['node', 'cpu-models'], positional: ['node'], columns: ['name', 'vendor', 'custom'], id: 'name' },
    async handle({ arch: wanted }, call) {
      const { host, cpuModels } = call.services
      const { models } = await processorModels(host, wanted ?? ownArch())
      const own: string[] = []
      for (const { name } of await cpuModels.list()) if (await maySeeCpuModel(name, call)) own.push(name)
      return [
        ...own.map((name) => ({ name: `${customPrefix}${name}`, custom: true, vendor: 'default' })),
        ...models.map((name) => ({ name, custom: false, vendor: vendorOf(name) })),
      ]
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/capabilities/qemu/cpu-flags',
    description: 'Flags of processors QEMU knows, and whether this node has them.',
    params: {
      ...at,
      arch,
      accel: optional(enumOf(['kvm', 'tcg'], { description: 'By hardware or in software.', default: 'kvm' })),
    },
    permission: anyone,
    returns: processorFlags,
    handle: ({ arch: wanted }, { services }) => flagsOf(services, wanted),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/capabilities/qemu/machines',
    description: 'Types of machines QEMU knows, newest first.',
    proxyTo: 'node',
    params: { ...at, arch },
    permission: anyone,
    returns: array(
      object({
        id: string({ description: 'Name of the type.' }),
        type: enumOf(['q35', 'i440fx'], { description: 'Chipset.' }),
        version: string({ description: 'Version of QEMU it is like.' }),
      }),
    ),
    cli: { command: ['node', 'machine-types'], positional: ['node'], columns: ['id', 'type', 'version'], id: 'id' },
    async handle({ arch: wanted }, { services }) {
      const types = await machineTypes(services.host, wanted ?? ownArch())
      return types.map(({ id, kind, version }) => ({ id, type: kind, version }))
    },
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/capabilities/qemu/migration',
    description: 'What a guest can take with it to another node.',
    proxyTo: 'node',
    params: at,
    permission: check('Sys.Audit', '/nodes/{node}'),
    returns: object({ 'has-dbus-vmstate': boolean({ description: 'State beside that of QEMU goes along.' }) }),
    handle: () => ({ 'has-dbus-vmstate': false }),
  }),
]
