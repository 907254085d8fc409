/** The file viewers of consoles open (`.vv`): one section of keys and values. */
import { Fault } from '#base/fault.ts'

/** @param facts as a reply holds them: flat, line breaks written as `\n` @throws Fault `unimplemented` for anything else */
export function viewerFile(facts: unknown): string {
  if (typeof facts !== 'object' || facts === null || Reflect.get(facts, 'type') !== 'spice') {
    throw new Fault('unimplemented', 'this is nothing a viewer could open: ask for it as json')
  }
  const lines = Object.entries(facts).map(([key, value]) => `${key}=${String(value)}`)
  return ['[virt-viewer]', ...lines, ''].join('\n')
}
