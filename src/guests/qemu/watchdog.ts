/** A watchdog the guest must pat, and what happens when it does not. */
import { readPropertyString } from '#base/schema/property-string.ts'
import { enumOf, optional } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import { device } from './argument.ts'
import type { MachineKind } from './machine.ts'
import { pciPlace } from './pci.ts'

export const watchdogFormat: PropertyFormat = {
  model: { schema: optional(enumOf(['i6300esb', 'ib700'], { default: 'i6300esb' })), isDefaultKey: true },
  action: { schema: optional(enumOf(['reset', 'shutdown', 'poweroff', 'pause', 'debug', 'none'])) },
}

export function watchdogToArgv(options: Options, machine: MachineKind): string[] {
  if (options.watchdog === undefined) return []
  const { model = 'i6300esb', action } = readPropertyString(watchdogFormat, options.watchdog, 'watchdog')
  const place = model === 'ib700' ? {} : pciPlace(machine, 'watchdog')
  return [
    ...device(String(model), { id: 'watchdog', ...place }),
    ...(action === undefined ? [] : ['-action', `watchdog=${action}`]),
  ]
}
