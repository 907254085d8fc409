/**
 * The guest's memory, by nodes: one piece, one per socket, or as the options say; of ordinary or of huge pages; and
 * what can be added while it runs.
 *
 * With hotplug of memory the guest starts with a fixed piece and has the rest in modules, whose sizes follow from the
 * total alone. So a guest that grew looks, module by module, as one that started with that size.
 */
import type { Errors } from '#base/schema/check.ts'
import { readPropertyString } from '#base/schema/property-string.ts'
import { enumOf, number, optional, string } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import { isOn } from '../config.ts'
import type { PropertyBag } from './argument.ts'
import { device, keyed } from './argument.ts'
import { topologyOf } from './cpu.ts'
import { hotplugsOf } from './hotplug-kinds.ts'
import { memoryMiBOf } from './memory.ts'
import { numbersIn } from './processors.ts'
import { hasFolders } from './virtiofs.ts'

export const numaCount = 8

const list = /\d+(?:-\d+)?(?:;\d+(?:-\d+)?)*/
export const numaFormat: PropertyFormat = {
  cpus: { schema: string({ description: 'Processors of the node: `0-1;4`.', pattern: list, maxLength: 400 }) },
  hostnodes: {
    schema: optional(
      string({ description: 'Nodes of the machine to take memory from.', pattern: list, maxLength: 400 }),
    ),
  },
  memory: { schema: optional(number({ description: 'MiB.', minimum: 0, maximum: 4_178_944 })) },
  policy: {
    schema: optional(enumOf(['preferred', 'bind', 'interleave'], { description: 'How to take it from there.' })),
  },
}

interface MemoryNode {
  readonly sizeMiB: number
  /** `0-1`, each to be given as `cpus=`. */
  readonly processors: readonly string[]
  readonly hostNodes: string | undefined
  readonly policy: string | undefined
}

/** Memory a guest with hotplug of memory starts with. */
const staticMiB = 1024
const firstModuleMiB = 512
const modulesPerSize = 32
const maximumMiB = 524_288
const slots = 255

export function hasMemoryModules(options: Options): boolean {
  return hotplugsOf(options).has('memory')
}

export interface MemoryModule {
  /** `dimm0` */
  readonly name: string
  readonly sizeMiB: number
  readonly node: number
}

/** Modules of a guest with that much memory in all; undefined when no number of modules comes to it. */
export function modulesFor(sizeMiB: number, nodes: number): MemoryModule[] | undefined {
  const modules: MemoryModule[] = []
  let left = sizeMiB - staticMiB
  for (let index = 0; left > 0 && index < slots; index += 1) {
    const size = firstModuleMiB * 2 ** Math.floor(index / modulesPerSize)
    if (size > left) return undefined
    modules.push({ name: `dimm${index}`, sizeMiB: size, node: index % nodes })
    left -= size
  }
  return left === 0 ? modules : undefined
}

export function memoryNodesOf(options: Options): number {
  return nodesOf(options, memoryMiBOf(options)).length
}

export function memoryToArgv(options: Options): string[] {
  const size = memoryMiBOf(options)
  const hasModules = hasMemoryModules(options)
  const first = hasModules ? staticMiB : size
  const nodes = isOn(options.numa, false) ? nodesOf(options, first) : []
  const argv = hasModules ? ['-m', keyed('', { size: first, slots, maxmem: `${maximumMiB}M` })] : ['-m', String(size)]
  if (nodes.length > 0) argv.push(...nodes.flatMap((node, index) => nodeToArgv(options, node, index)))
  else if (options.hugepages !== undefined || hasFolders(options)) {
    argv.push('-object', backendOf(options, 'ram', first), '-machine', 'memory-backend=ram')
  }
  for (const module of (hasModules && modulesFor(size, nodes.length)) || []) {
    argv.push('-object', backendOf(options, `mem-${module.name}`, module.sizeMiB))
    argv.push(...device('pc-dimm', { id: module.name, memdev: `mem-${module.name}`, node: module.node }))
  }
  return argv
}

function nodeToArgv(options: Options, node: MemoryNode, index: number): string[] {
  const id = `ram-node${index}`
  const binding = node.hostNodes === undefined ? {} : { 'host-nodes': node.hostNodes, policy: node.policy ?? 'bind' }
  const cpus = node.processors.map((range) => `,cpus=${range}`).join('')
  return ['-object', backendOf(options, id, node.sizeMiB, binding), '-numa', `node,nodeid=${index}${cpus},memdev=${id}`]
}

function backendOf(options: Options, id: string, sizeMiB: number, binding: PropertyBag = {}): string {
  const bytes = hugePageBytes(options)
  const size = `${sizeMiB}M`
  const share = hasFolders(options)
  if (bytes === undefined) {
    return share
      ? keyed('memory-backend-memfd', { id, size, share, ...binding })
      : keyed('memory-backend-ram', { id, size, ...binding })
  }
  // Taken at once: a guest must not die later for a page that is not there.
  const pages = { hugetlb: true, hugetlbsize: bytes, prealloc: true, share }
  return keyed('memory-backend-memfd', { id, size, ...pages, ...binding })
}

const MiB = 1024 * 1024

/** Size of the pages asked for; `any` is the smaller kind, which fits every size of memory. */
export function hugePageBytes(options: Options): number | undefined {
  if (options.hugepages === undefined) return undefined
  return options.hugepages === '1024' ? 1024 * MiB : 2 * MiB
}

/** As configured, else one per socket; what does not divide goes to the last. */
function nodesOf(options: Options, sizeMiB: number): MemoryNode[] {
  const own = configured(options)
  if (own.length > 0) return own
  const { sockets, cores } = topologyOf(options)
  const share = Math.floor(sizeMiB / sockets)
  return Array.from({ length: sockets }, (_, node) => ({
    sizeMiB: node === sockets - 1 ? sizeMiB - share * node : share,
    processors: [cores === 1 ? String(node) : `${node * cores}-${(node + 1) * cores - 1}`],
    hostNodes: undefined,
    policy: undefined,
  }))
}

function configured(options: Options): MemoryNode[] {
  return numaNames(options).map((name) => {
    const values = readPropertyString(numaFormat, options[name] ?? '', name)
    return {
      sizeMiB: Number(values.memory ?? 0),
      processors: String(values.cpus).split(';'),
      hostNodes: values.hostnodes === undefined ? undefined : String(values.hostnodes).replaceAll(';', ','),
      policy: values.policy === undefined ? undefined : String(values.policy),
    }
  })
}

function numaNames(options: Options): string[] {
  return Array.from({ length: numaCount }, (_, index) => `numa${index}`).filter((name) => options[name] !== undefined)
}

/** Nodes of the machine the guest's memory is bound to. */
export function hostNodesOf(options: Options): number[] {
  if (!isOn(options.numa, false)) return []
  return configured(options).flatMap(({ hostNodes }) => (hostNodes && numbersIn(hostNodes, ',')) || [])
}

export function numaErrors(options: Options): Errors {
  const size = memoryMiBOf(options)
  const errors: Errors = {}
  if (hasMemoryModules(options)) {
    if (!isOn(options.numa, false)) errors.hotplug = "hotplug of memory needs 'numa'"
    else if (configured(options).length > 0) errors.numa0 = 'hotplug of memory goes with one node per socket alone'
    else if (size < staticMiB || !modulesFor(size, 1)) {
      errors.memory = `with hotplug of memory it is ${staticMiB} MiB and modules of ${firstModuleMiB} MiB`
    }
  }
  const pages = hugePageBytes(options)
  if (pages !== undefined && (size * MiB) % pages > 0) {
    errors.hugepages = `memory must be a multiple of ${pages / MiB} MiB, and is ${size} MiB`
  }
  if (!isOn(options.numa, false)) return errors
  const names = numaNames(options)
  for (const [index, name] of names.entries()) if (name !== `numa${index}`) errors[name] = `numa${index} is missing`
  const total = configured(options).reduce((sum, { sizeMiB }) => sum + sizeMiB, 0)
  if (names.length > 0 && total !== size) {
    errors.numa0 = `the nodes' memory is ${total} MiB in all, and must be memory, which is ${size} MiB`
  }
  return { ...errors, ...processorErrors(options, names) }
}

/** Each processor belongs to one node. */
function processorErrors(options: Options, names: readonly string[]): Errors {
  const { maximum } = topologyOf(options)
  const seen = new Set<number>()
  for (const name of names) {
    const { cpus } = readPropertyString(numaFormat, options[name] ?? '', name)
    for (const cpu of numbersIn(String(cpus), ';') ?? []) {
      if (cpu >= maximum) return { [name]: `the guest has no processor ${cpu}: it has ${maximum}` }
      if (seen.has(cpu)) return { [name]: `processor ${cpu} is in another node already` }
      seen.add(cpu)
    }
  }
  return {}
}
