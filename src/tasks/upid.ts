/**
 * A task's identifier: `UPID:<node>:<pid>:<pstart>:<starttime>:<type>:<id>:<user>:`.
 *
 * Clients take it apart (node, hexadecimal numbers, type, user), so its shape is contract. Pid and start time
 * of the worker are part of it: together they name one process for as long as the machine is up, which tells
 * a running task from a dead one. It is also the name of the task's directory, hence no slash and a bound.
 */
import { Fault, invalid } from '#base/fault.ts'
import type { UpidText } from '#base/ids.ts'

export interface Upid {
  readonly node: string
  readonly pid: number
  /** Start of the process in clock ticks after boot. */
  readonly pstart: number
  /** Start of the task in seconds since 1970. */
  readonly starttime: number
  readonly type: string
  /** What it is about, usually a vmid; may be empty. */
  readonly id: string
  /** `user@realm`, or `user@realm!token`. */
  readonly user: string
}

const shape =
  /^UPID:([a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?):([0-9A-Fa-f]{8}):([0-9A-Fa-f]{8,9}):([0-9A-Fa-f]{8}):([^:\s/]+):([^:\s/]*):([^:\s/]+):$/u
/** A file name may have 255; the archive puts a few in front. */
const nameBytes = 240

/** @throws Fault `invalid` with `errors.upid`, in the wording clients know. */
export function parseUpid(text: string): Upid {
  const [, node = '', pid = '', pstart = '', starttime = '', type = '', id = '', user = ''] = shape.exec(text) ?? []
  if (node === '') throw invalid({ upid: 'unable to parse worker upid' })
  const number = (digits: string) => Number.parseInt(digits, 16)
  return { node, pid: number(pid), pstart: number(pstart), starttime: number(starttime), type, id, user }
}

/** @throws Fault `invalid` when a part cannot be in a UPID, or all together are too long. */
export function printUpid(upid: Upid): UpidText {
  const hex = (value: number) => value.toString(16).toUpperCase().padStart(8, '0')
  const { node, pid, pstart, starttime, type, id, user } = upid
  const text = ['UPID', node, hex(pid), hex(pstart), hex(starttime), type, id, user, ''].join(':')
  if (!shape.test(text)) throw new Fault('invalid', `'${text}' would be no task identifier`)
  if (Buffer.byteLength(text) > nameBytes) {
    throw new Fault('invalid', `the task identifier '${text}' would be longer than ${nameBytes} bytes`)
  }
  return text as UpidText
}

/** The text as it would be printed: what a client sends may have other case in its digits. */
export function asUpid(text: string): UpidText {
  return printUpid(parseUpid(text))
}

export function isUpid(text: string): text is UpidText {
  return shape.test(text)
}
