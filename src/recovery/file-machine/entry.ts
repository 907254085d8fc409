/** What a file machine says of entries, read with care: a name may hold any byte but those that end it. */
import { Fault } from '#base/fault.ts'

export type FoundKind = 'file' | 'directory' | 'symbolic link' | 'pipe' | 'socket' | 'character device' | 'block device'

export interface FoundEntry {
  /** From where was looked; '' is that itself. Each character a byte. */
  readonly path: string
  readonly kind: FoundKind
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly sizeBytes: number
  readonly modified: { readonly seconds: number; readonly nanoseconds: number }
  /** Of a symbolic link. */
  readonly target?: string
}

const kinds: Readonly<Record<string, FoundKind>> = {
  f: 'file',
  d: 'directory',
  l: 'symbolic link',
  p: 'pipe',
  s: 'socket',
  c: 'character device',
  b: 'block device',
}
const [nameMaximumBytes, pathMaximumBytes] = [1_024, 16_384]
const head = /^([fdlpscbU?]) ([0-7]{1,4}) (\d{1,10}) (\d{1,10}) (\d{1,19}) (-?\d{1,19})(?:\.(\d{1,10}))? \S{1,64}$/

/** @throws Fault `unavailable` for what no entry is */
export async function* entriesIn(parts: AsyncIterable<Buffer>): AsyncGenerator<FoundEntry> {
  let rest = ''
  let fields: string[] = []
  for await (const part of parts) {
    rest += part.toString('latin1')
    for (let end = rest.indexOf('\0'); end >= 0; end = rest.indexOf('\0')) {
      fields.push(rest.slice(0, end))
      rest = rest.slice(end + 1)
      if (fields.length < 3) continue
      const entry = entryOf(fields)
      if (entry) yield entry
      fields = []
    }
    if (rest.length > pathMaximumBytes) throw odd()
  }
  if (rest !== '' || fields.length > 0) throw odd()
}

/** Nothing for what has no kind that is known. */
function entryOf([facts = '', path = '', target = '']: readonly string[]): FoundEntry | undefined {
  const found = head.exec(facts)
  if (!found || path.length > pathMaximumBytes || target.length > pathMaximumBytes) throw odd()
  const [, letter = '', mode = '', uid = '', gid = '', size = '', seconds = '', nanoseconds = ''] = found
  const names = path === '' ? [] : path.split('/')
  if (names.some((name) => name === '' || name === '.' || name === '..' || name.length > nameMaximumBytes)) throw odd()
  const kind = kinds[letter]
  const sizeBytes = Number(size)
  if (!Number.isSafeInteger(sizeBytes) || !Number.isSafeInteger(Number(seconds))) throw odd()
  if (kind === undefined) return undefined
  return {
    path,
    kind,
    mode: Number.parseInt(mode, 8),
    uid: Number(uid),
    gid: Number(gid),
    sizeBytes,
    modified: { seconds: Number(seconds), nanoseconds: Number(nanoseconds.slice(0, 9).padEnd(9, '0')) },
    ...(kind === 'symbolic link' ? { target } : {}),
  }
}

function odd(): Fault {
  return new Fault('unavailable', 'the machine that reads the disks of the backup tells of entries that cannot be')
}
