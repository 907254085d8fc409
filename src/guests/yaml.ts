/** Values as YAML. The library is loaded when somebody needs it, which few tasks do: it is a seventh of all modules. */
import { createRequire } from 'node:module'
import type { stringify, ToStringOptions } from 'yaml'

const load = createRequire(import.meta.url)

export function toYaml(value: unknown, how: ToStringOptions = {}): string {
  const yaml = load('yaml') as { readonly stringify: typeof stringify }
  return yaml.stringify(value, how)
}
