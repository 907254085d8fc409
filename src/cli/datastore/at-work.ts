/** How work on a datastore is held back and told of, as the command line has it. */
import { rateOfLimit } from '#base/bytes.ts'
import type { Mark } from '#base/pace.ts'
import { Fault } from '#base/fault.ts'
import type { Parsed } from '../arguments.ts'
import { progressOn } from '../progress.ts'
import type { Terminal } from '../terminal.ts'

export const textOf = (value: string | string[] | undefined) => (typeof value === 'string' ? value : undefined)

/** KiB per second, as `bwlimit` everywhere. */
export function rateOf(params: Parsed['params']): number | undefined {
  const text = textOf(params.bwlimit)
  if (text === undefined) return undefined
  const limit = Number(text)
  if (Number.isInteger(limit) && limit >= 0) return rateOfLimit(limit)
  throw new Fault('invalid', `bwlimit: '${text}' is no number of KiB per second`)
}

export function shown(terminal: Terminal, { global }: Parsed): (mark: Mark) => void {
  return progressOn(terminal, { isQuiet: global.quiet })
}

/** Of work that is told of in bytes. */
export function shownBytes(terminal: Terminal, parsed: Parsed, phase: string): (done: number, all: number) => void {
  const show = shown(terminal, parsed)
  return (done, all) => show({ phase, fraction: done / Math.max(1, all), bytes: done })
}
