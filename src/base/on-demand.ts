/**
 * Things that are made, and modules that are loaded, when they are first asked for.
 *
 * A module costs a third of a millisecond, and the process of a task needs a fifth of all. Where an `import()` would do
 * it is the plainer word; `loaderFor` is for where a caller cannot wait for a promise, and where `import()` could still
 * be under way for the same modules, which Node refuses to load by both ways at once.
 */
import { createRequire } from 'node:module'

/** @param url the caller's `import.meta.url`, from which paths are meant */
export function loaderFor(url: string): <Module>(path: string) => Module {
  return createRequire(url)
}

/** Made at the first call, and the same at each further one. */
export function once<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined
  return () => (made ??= { value: make() }).value
}

/**
 * What is there, and parts that are made when they are first asked for, and kept. Copying the whole (`{ ...whole }`)
 * asks for all of them.
 * @param makers each is handed the whole, so that one part may ask for another
 */
export function onDemand<Whole extends object, There extends object>(
  there: There,
  makers: { readonly [Name in Exclude<keyof Whole, keyof There>]: (whole: Whole) => Whole[Name] },
): Whole {
  const whole = { ...there } as unknown as Whole
  for (const [name, make] of Object.entries<(whole: Whole) => unknown>(makers)) {
    Object.defineProperty(whole, name, { get: once(() => make(whole)), enumerable: true })
  }
  return whole
}
