/** What the server fills in when a guest is made: identity, addresses, provenance. */
import { seconds } from '#base/clock.ts'
import type { Clock } from '#base/clock.ts'
import { invalid } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import { printPropertyString, readPropertyString } from '#base/schema/property-string.ts'
import type { Host } from '#host/host.ts'
import type { Options } from '../config.ts'
import { defaultBoot } from './boot.ts'
import { normalised } from './change.ts'
import { qemuProgram } from './launch.ts'
import { nicNames, withMac } from './nic.ts'
import { optionErrors } from './options.ts'
import { smbiosFormat } from './smbios.ts'

export interface Provenance {
  readonly random: Random
  readonly clock: Clock
  /** `7.2.22` */
  readonly qemuVersion: string
}

/** The options of a new guest, in one spelling. @throws Fault `invalid` naming each wrong option */
export function requireOptions(options: Options): Options {
  const result = normalised(options)
  const errors = optionErrors(result)
  for (const name of Object.keys(result)) if (/^unused\d+$/.test(name)) errors[name] = 'a new guest has no unused disks'
  if (Object.keys(errors).length > 0) throw invalid(errors)
  return result
}

/** Adds what a complete configuration has and nobody gave. */
export function completed(options: Options, { random, clock, qemuVersion }: Provenance): Options {
  const result: Record<string, string> = { ...withIdentity(options, random) }
  for (const name of nicNames(options)) result[name] = withMac(name, options[name] ?? '', random)
  result.meta = `creation-qemu=${qemuVersion},ctime=${seconds(clock)}`
  const boot = result.boot ?? (result.bootdisk === undefined ? defaultBoot(result) : undefined)
  if (boot !== undefined) result.boot = boot
  return result
}

/** UUID and generation id where they are missing or asked for; `vmgenid=1` becomes an id. */
function withIdentity(options: Options, random: Random): Options {
  const smbios = options.smbios1 === undefined ? {} : readPropertyString(smbiosFormat, options.smbios1, 'smbios1')
  const { vmgenid = '1' } = options
  return {
    ...options,
    smbios1: printPropertyString(smbiosFormat, { ...smbios, uuid: String(smbios.uuid ?? random.uuid()) }),
    vmgenid: vmgenid === '1' ? random.uuid() : vmgenid,
  }
}

/** What a changed option still lacks: MAC addresses, an asked-for generation id. */
export function completedChange(options: Options, random: Random): Options {
  const result: Record<string, string> = { ...options }
  for (const name of nicNames(options)) result[name] = withMac(name, options[name] ?? '', random)
  if (result.vmgenid === '1') result.vmgenid = random.uuid()
  return result
}

/** A copy that is nobody's twin: new UUID, generation id and MAC addresses. For restores with `unique`. */
export function unique(options: Options, random: Random): Options {
  const { vmgenid, smbios1, ...rest } = options
  const smbios = smbios1 === undefined ? {} : readPropertyString(smbiosFormat, smbios1, 'smbios1')
  const result: Record<string, string> = {
    ...rest,
    smbios1: printPropertyString(smbiosFormat, { ...smbios, uuid: random.uuid() }),
    vmgenid: vmgenid === '0' ? '0' : random.uuid(),
  }
  for (const name of nicNames(options)) result[name] = withMac(name, options[name] ?? '', random, true)
  return result
}

/** Version of the installed QEMU. */
export async function qemuVersion(host: Host): Promise<string> {
  const { stdout } = await host.run([qemuProgram, '--version'], { timeoutMs: 10_000 })
  return /version (\d+(?:\.\d+)+)/.exec(stdout)?.[1] ?? '0'
}
