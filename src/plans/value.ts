/** Values of plans: what a step says, what a call answers. */

/** A value as JSON has it. */
export type Value = null | boolean | number | string | readonly Value[] | { readonly [key: string]: Value }

export function isMap(value: Value | undefined): value is { readonly [key: string]: Value } {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
