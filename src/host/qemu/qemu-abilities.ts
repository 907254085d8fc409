/** What the installed QEMU can be: machine types and processor models, as it lists them itself. */
import { Fault } from '#base/fault.ts'
import type { Argv, Host } from '../host.ts'

export interface MachineType {
  /** `pc-q35-7.2` */
  readonly id: string
  readonly kind: 'q35' | 'i440fx'
  readonly version: string
}

const programs: Readonly<Record<string, string>> = { x86_64: 'qemu-system-x86_64', aarch64: 'qemu-system-aarch64' }

/** @throws Fault `missing` when QEMU for that architecture is not installed */
export async function machineTypes(host: Host, arch: string): Promise<MachineType[]> {
  const { stdout } = await host.run(question(arch, '-machine'))
  return parseMachineTypes(stdout)
}

/** Reads `qemu-system-x86_64 -machine help`; newest first. */
export function parseMachineTypes(text: string): MachineType[] {
  const found = [...text.matchAll(/^(pc-(q35|i440fx)-(\d+(?:\.\d+)+))\s/gm)].map(
    ([, id = '', kind, version = '']): MachineType => ({ id, kind: kind === 'q35' ? 'q35' : 'i440fx', version }),
  )
  const rank = ({ version }: MachineType) => version.split('.').reduce((sum, part) => sum * 1000 + Number(part), 0)
  return found.toSorted((a, b) => rank(b) - rank(a) || (a.id < b.id ? -1 : 1))
}

export interface ProcessorModels {
  readonly models: readonly string[]
  readonly flags: readonly string[]
}

export async function processorModels(host: Host, arch: string): Promise<ProcessorModels> {
  const { stdout } = await host.run(question(arch, '-cpu'))
  return parseProcessorModels(stdout)
}

/** Reads `qemu-system-x86_64 -cpu help`: a model a line, then the flags it knows. */
export function parseProcessorModels(text: string): ProcessorModels {
  const [list = '', flags = ''] = text.split(/^Recognized CPUID flags:\s*$/m)
  const models = [...list.matchAll(/^(?:x86\s+|\s{2})([A-Za-z0-9][\w.-]*)(?:\s|$)/gm)].map(([, name = '']) => name)
  return { models: [...new Set(models)], flags: flags.split(/\s+/).filter(Boolean) }
}

function question(arch: string, option: string): Argv {
  const program = programs[arch]
  if (program === undefined) throw new Fault('missing', `there is no QEMU for '${arch}'`)
  return [program, option, 'help']
}
