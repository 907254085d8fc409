/** Processors: model, flags and topology; and the limits the guest's control group gets. */
import type { Errors } from '#base/schema/check.ts'
import type { PropertyValues } from '#base/schema/property-string.ts'
import { readPropertyString } from '#base/schema/property-string.ts'
import { boolean, enumOf, optional, string } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import { keyed } from './argument.ts'
import type { Accelerator } from './machine.ts'

export const cpuFormat: PropertyFormat = {
  cputype: {
    schema: optional(string({ description: 'Model, `host` or `max`.', pattern: /[A-Za-z0-9][\w.-]*/, maxLength: 60 })),
    isDefaultKey: true,
  },
  flags: {
    schema: optional(
      string({
        description: 'Flags to add or remove, as `+aes;-pcid`.',
        pattern: /[+-][\w.-]+(?:;[+-][\w.-]+)*/,
        maxLength: 400,
      }),
    ),
  },
  hidden: { schema: optional(boolean({ description: 'Hide that this is a virtual machine.' })) },
  'hv-vendor-id': { schema: optional(string({ pattern: /[A-Za-z0-9]{1,12}/ })) },
  'phys-bits': { schema: optional(string({ pattern: /host|[0-9]{1,2}/ })) },
  'guest-phys-bits': { schema: optional(string({ pattern: /[0-9]{1,2}/ })) },
  'reported-model': { schema: optional(enumOf(['kvm64', 'qemu64', 'max', 'host'])) },
}

/** The architecture levels, which QEMU has no models for: each adds to the one before. */
const levels: Readonly<Record<string, readonly string[]>> = {
  'x86-64-v2': ['popcnt', 'pni', 'sse4.1', 'sse4.2', 'ssse3'],
  'x86-64-v2-AES': ['aes', 'popcnt', 'pni', 'sse4.1', 'sse4.2', 'ssse3'],
  'x86-64-v3': 'aes popcnt pni sse4.1 sse4.2 ssse3 avx avx2 bmi1 bmi2 f16c fma abm movbe xsave'.split(' '),
  'x86-64-v4':
    'aes popcnt pni sse4.1 sse4.2 ssse3 avx avx2 bmi1 bmi2 f16c fma abm movbe xsave avx512f avx512bw avx512cd avx512dq avx512vl'.split(
      ' ',
    ),
}

/** Models that promise features of the host's processor: software emulation answers them with all it can do. */
const meansBest = /^(host|max|kvm64|kvm32|x86-64-v\d.*)$/

/** A model the owner of the cluster made: a real one with changes. */
export interface CpuModel {
  readonly 'reported-model'?: string | undefined
  readonly flags?: string | undefined
  readonly hidden?: boolean | undefined
  readonly 'hv-vendor-id'?: string | undefined
  readonly level?: number | undefined
  readonly 'phys-bits'?: string | undefined
  readonly 'guest-phys-bits'?: number | undefined
}

/** Models of the owner are asked for with this before their name. */
export const customPrefix = 'custom-'

/** Name of the owner's model the guest has, if any. */
export function customModelOf(options: Options): string | undefined {
  const type = options.cpu === undefined ? undefined : readPropertyString(cpuFormat, options.cpu, 'cpu').cputype
  return typeof type === 'string' && type.startsWith(customPrefix) ? type.slice(customPrefix.length) : undefined
}

/** What the guest says beats what its model says; flags add up, the guest's last. */
function wishes(options: Options, model: CpuModel | undefined): PropertyValues {
  const own = options.cpu === undefined ? {} : readPropertyString(cpuFormat, options.cpu, 'cpu')
  if (!model) return own
  const { flags, 'reported-model': reported = 'kvm64', ...rest } = model
  const given = Object.entries(rest).filter((entry): entry is [string, string | number | boolean] => {
    return entry[1] !== undefined
  })
  const all = [flags, own.flags].filter((some) => some !== undefined).join(';')
  return { ...Object.fromEntries(given), ...own, cputype: reported, ...(all === '' ? {} : { flags: all }) }
}

/** @param custom the owner's model, when the guest has one */
export function cpuToArgv(options: Options, accelerator: Accelerator, custom?: CpuModel): string[] {
  const values = wishes(options, custom)
  const type = String(values.cputype ?? 'kvm64')
  const flags = typeof values.flags === 'string' ? values.flags.split(';') : []
  const level = levels[type]
  const isEmulated = accelerator === 'tcg' && meansBest.test(type)
  const model = isEmulated ? 'max' : level ? 'qemu64' : type
  const parts = [model]
  if (level && !isEmulated) parts.push(...level.map((flag) => `${flag}=on`))
  // Where QEMU has several flags of one name the last one counts.
  for (const flag of flags) parts.push(`${flag.slice(1)}=${flag.startsWith('+') ? 'on' : 'off'}`)
  if (values.hidden === true) parts.push('kvm=off', 'hypervisor=off')
  if (values.level !== undefined) parts.push(`level=${values.level}`)
  if (accelerator === 'kvm') {
    if (values['hv-vendor-id'] !== undefined) parts.push(`hv_vendor_id=${values['hv-vendor-id']}`)
    if (values['phys-bits'] === 'host') parts.push('host-phys-bits=on')
    else if (values['phys-bits'] !== undefined) parts.push(`phys-bits=${values['phys-bits']}`)
  }
  return ['-cpu', parts.join(',')]
}

export interface Topology {
  readonly sockets: number
  readonly cores: number
  /** Processors the guest may ever have. */
  readonly maximum: number
  /** Processors plugged at start. */
  readonly plugged: number
}

export function topologyOf(options: Options): Topology {
  // `smp` is the oldest spelling of the number of sockets.
  const sockets = Number(options.sockets ?? options.smp ?? 1)
  const cores = Number(options.cores ?? 1)
  const maximum = sockets * cores
  const wanted = Number(options.vcpus ?? maximum)
  return { sockets, cores, maximum, plugged: Math.min(wanted, maximum) }
}

export function topologyToArgv(options: Options): string[] {
  const { sockets, cores, maximum, plugged } = topologyOf(options)
  const bag = { sockets, cores, threads: 1, maxcpus: maximum === plugged ? undefined : maximum }
  return ['-smp', keyed(String(plugged), bag)]
}

/** More virtual processors than this no supported machine type boots with. */
const maximumProcessors = 255

export function cpuErrors(options: Options): Errors {
  const { maximum } = topologyOf(options)
  const errors: Errors = {}
  const values = options.cpu === undefined ? {} : readPropertyString(cpuFormat, options.cpu, 'cpu')
  if (values['guest-phys-bits'] !== undefined) {
    errors.cpu = "'guest-phys-bits' is not known to the QEMU of this release: leave it out"
  }
  if (maximum > maximumProcessors) {
    errors.cores = `sockets times cores is ${maximum}: a guest has at most ${maximumProcessors} processors`
  }
  if (options.vcpus !== undefined && Number(options.vcpus) > maximum) {
    errors.vcpus = `value must not be larger than sockets times cores, which is ${maximum}`
  }
  return errors
}

export interface CpuLimits {
  /** Processors' worth of time; absent: no limit. */
  readonly cpuLimit?: number
  /** Share against other guests, as PVE counts: 100 is ordinary. */
  readonly cpuUnits: number
}

export function cpuLimitsOf(options: Options): CpuLimits {
  const limit = Number(options.cpulimit ?? 0)
  // `cpuunits` of older configurations count in 1024 for an ordinary guest; both end in the same range.
  const cpuUnits = Number(options.cpuunits ?? 100)
  return limit > 0 ? { cpuLimit: limit, cpuUnits } : { cpuUnits }
}
