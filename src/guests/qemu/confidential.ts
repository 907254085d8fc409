/**
 * Guests whose memory the node itself cannot read (`amd-sev`, `intel-tdx`): what is asked for, and what the machine lacks
 * for it.
 *
 * A guest that asks for it must not run without: who relies on it would not notice. So it is refused where it is asked
 * for, and again at the start, since a configuration may come from elsewhere.
 */
import { Fault, invalid } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { readPropertyString } from '#base/schema/property-string.ts'
import { boolean, enumOf, integer, optional } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import { isThere, readIfPresent } from '#host/files.ts'
import type { Options } from '../config.ts'

const flag = (description: string) => ({ schema: optional(boolean({ description })) })

export const sevFormat: PropertyFormat = {
  type: {
    schema: enumOf(['std', 'es', 'snp'], { description: 'Memory alone, with registers, or with integrity.' }),
    isDefaultKey: true,
  },
  'allow-smt': flag('Run on processors with simultaneous threads.'),
  'kernel-hashes': flag('Measure the kernel.'),
  'no-debug': flag('Forbid debugging.'),
  'no-key-sharing': flag('Share the key with no other guest.'),
}

export const tdxFormat: PropertyFormat = {
  type: { schema: enumOf(['tdx'], { description: 'Kind.' }), isDefaultKey: true },
  attestation: flag('Let the guest prove what it is.'),
  'vsock-cid': {
    schema: optional(integer({ description: 'Context of the proving service.', minimum: 2, maximum: 4_294_967_295 })),
  },
  'vsock-port': {
    schema: optional(integer({ description: 'Port of the proving service.', minimum: 0, maximum: 4_294_967_295 })),
  },
}

/** @throws Fault `invalid` naming the option and what is missing */
export async function requireConfidential(options: Options, root?: string): Promise<void> {
  const [first] = await complaints(options, root)
  if (!first) return
  const { name, why } = first
  throw invalid({ [name]: why }, { remedy: `Leave ${name} out, or run the guest on a machine that has it.` })
}

/** @throws Fault `unavailable`, as above, for a guest that is about to start */
export async function requireConfidentialHost(vmid: Vmid, options: Options): Promise<void> {
  const [first] = await complaints(options)
  if (!first) return
  throw new Fault('unavailable', `VM ${vmid}: ${first.name}: ${first.why}`, {
    remedy: `Take ${first.name} out, and its memory is not protected from the node; or run the guest elsewhere.`,
  })
}

/** @param root stands for `/` */
async function complaints(options: Options, root = ''): Promise<{ readonly name: string; readonly why: string }[]> {
  const found: { name: string; why: string }[] = []
  for (const name of ['amd-sev', 'intel-tdx'] as const) {
    const text = options[name]
    if (text === undefined) continue
    const format = name === 'amd-sev' ? sevFormat : tdxFormat
    const { type } = readPropertyString(format, text, name)
    const { module, parameter, device } = placesOf(String(type))
    const isOffered = /^[1Y]/.test((await readIfPresent(`${root}/sys/module/${module}/parameters/${parameter}`)) ?? '')
    if (!isOffered) found.push({ name, why: `this machine's kernel does not offer it (${module}, ${parameter})` })
    else if (!(await isThere(`${root}${device}`))) found.push({ name, why: `this machine has no ${device}` })
    else found.push({ name, why: 'starting such guests is not supported by this release' })
  }
  return found
}

function placesOf(type: string): { module: string; parameter: string; device: string } {
  if (type === 'tdx') return { module: 'kvm_intel', parameter: 'tdx', device: '/dev/kvm' }
  const parameter = type === 'std' ? 'sev' : `sev_${type}`
  return { module: 'kvm_amd', parameter, device: '/dev/sev' }
}
