/** Paths of calls, from templates such as `/nodes/{node}/qemu/{vmid}`. */
import { invalid } from '#base/fault.ts'
import type { Params } from './connection.ts'

/** Fills `{name}` and `{name*}`. @throws Fault `invalid` for a value that would lead to another path */
export function filledPath(template: string, params: Params): string {
  return template.replace(/\{([\w-]+)\*?\}/g, (_, name: string) => {
    const value = String(params[name] ?? '')
    const isElsewhere = value === '' || value.split('/').some((part) => part === '.' || part === '..')
    if (isElsewhere) throw invalid({ [name]: `'${value}' names nothing` })
    return encodeURIComponent(value)
  })
}

/** The parameters that are no part of the path. */
export function withoutPath(template: string, params: Params): Params {
  return Object.fromEntries(Object.entries(params).filter(([name]) => !new RegExp(`\\{${name}\\*?\\}`).test(template)))
}
