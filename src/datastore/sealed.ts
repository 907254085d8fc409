/**
 * Small JSON files that notice any change of any byte: `{"sha256":"…","value":…}` and a newline.
 *
 * The text is canonical (no spaces, members in the order they were written). Reading checks the digest
 * of the value's text *and* that printing what was read gives the very same bytes, so a change that
 * JSON would forgive (an escape, a space, a letter's case in `\u`) is found as well.
 */
import { hash } from 'node:crypto'
import { Fault } from '#base/fault.ts'
import type { Json } from '#store/store.ts'

export function seal(value: Json): string {
  const text = JSON.stringify(value)
  return `{"sha256":"${hash('sha256', text, 'hex')}","value":${text}}\n`
}

/**
 * The value inside; its shape is for the caller to check.
 * @param name the file as the user shall read it in the fault
 * @throws Fault `damaged` naming the file
 */
export function unseal(text: string, name: string): unknown {
  let outer: unknown
  try {
    outer = JSON.parse(text)
  } catch (cause) {
    throw new Fault('damaged', `${name} is damaged: it is not readable as JSON`, { cause })
  }
  if (typeof outer !== 'object' || outer === null || !('value' in outer)) {
    throw new Fault('damaged', `${name} is damaged: it has no value`)
  }
  // What came out of JSON.parse can go into JSON again.
  if (seal(outer.value as Json) !== text) throw new Fault('damaged', `${name} is damaged: its digest does not match`)
  return outer.value
}
