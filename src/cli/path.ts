/** Paths of calls, from templates such as `/nodes/{node}/qemu/{vmid}`. */
import type { Params } from './connection.ts'

/** Fills `{name}` and `{name*}`; a value missing stays empty, which the node refuses. */
export function filledPath(template: string, params: Params): string {
  return template.replace(/\{([\w-]+)\*?\}/g, (_, name: string) => encodeURIComponent(String(params[name] ?? '')))
}

/** The parameters that are no part of the path. */
export function withoutPath(template: string, params: Params): Params {
  return Object.fromEntries(Object.entries(params).filter(([name]) => !new RegExp(`\\{${name}\\*?\\}`).test(template)))
}
