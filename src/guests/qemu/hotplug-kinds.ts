/** Kinds of changes a running guest may take at once: the option `hotplug`. */
import type { Options } from '../config.ts'

const kinds = ['network', 'disk', 'cpu', 'memory', 'usb', 'cloudinit'] as const
export type HotplugKind = (typeof kinds)[number]
const ordinary: readonly HotplugKind[] = ['network', 'disk', 'usb']

const words = (text: string) => text.split(/[,;\s]+/).filter(Boolean)
const isKind = (word: string): word is HotplugKind => (kinds as readonly string[]).includes(word)

/** `1` means the ordinary kinds, `0` none. */
export function hotplugsOf({ hotplug = '1' }: Options): ReadonlySet<HotplugKind> {
  if (hotplug === '1') return new Set(ordinary)
  return new Set(words(hotplug).filter(isKind))
}

export function hotplugError({ hotplug = '1' }: Options): string | undefined {
  if (hotplug === '1' || hotplug === '0') return undefined
  const wrong = words(hotplug).find((word) => !isKind(word))
  return wrong === undefined ? undefined : `unknown kind '${wrong}': there are ${kinds.join(', ')}`
}
