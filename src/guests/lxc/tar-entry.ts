/** One member of a tar archive as its headers tell of it: its own, and those before it that add to it. */
import { tarName, tarNumber, tarText, tarType } from '#storage/tar-header.ts'

export type EntryKind = 'file' | 'hard link' | 'symbolic link' | 'device' | 'directory' | 'pipe'

export interface TarEntry {
  readonly kind: EntryKind
  /** Each character a byte, because a name may be in any encoding or in none. */
  readonly name: string
  /** What a link points at. */
  readonly target: string
  readonly uid: number
  readonly gid: number
  /** Bytes that follow the headers. */
  readonly storedBytes: number
  /** What follows begins with more of the map of a sparse file (GNU's old form). */
  readonly hasMoreMap: boolean
}

/** Facts told ahead of the header, by key: `path`, `size`, … */
export type ToldAhead = ReadonlyMap<string, string>

const kinds: Readonly<Record<string, EntryKind>> = {
  '\0': 'file',
  '0': 'file',
  '1': 'hard link',
  '2': 'symbolic link',
  '3': 'device',
  '4': 'device',
  '5': 'directory',
  '6': 'pipe',
  '7': 'file',
  S: 'file',
}

/** Nothing when it is of a kind no file system has. Numbers are NaN when they are none. */
export function entryOf(header: Buffer, ahead: ToldAhead): TarEntry | undefined {
  const type = tarType(header)
  const kind = kinds[type]
  if (kind === undefined) return undefined
  const number = (key: string, from: number, length: number) => {
    const told = ahead.get(key)
    if (told === undefined) return tarNumber(header, from, length)
    return /^\d{1,15}$/.test(told) ? Number(told) : NaN
  }
  const size = number('size', 124, 12)
  return {
    kind,
    name: ahead.get('GNU.sparse.name') ?? ahead.get('path') ?? tarName(header, 'latin1'),
    target: ahead.get('linkpath') ?? tarText(header, 157, 100, 'latin1'),
    uid: number('uid', 108, 8),
    gid: number('gid', 116, 8),
    // Old programs wrote there how large the file is that is linked to; nothing follows.
    storedBytes: kind === 'hard link' ? 0 : size,
    hasMoreMap: type === 'S' && header[482] !== 0,
  }
}

/** `30 path=a name\n` and so on. Nothing when it is not of that form to the last byte. */
export function paxRecords(content: Buffer): Map<string, string> | undefined {
  const records = new Map<string, string>()
  for (let at = 0; at < content.length;) {
    // Some programs fill up with zeros.
    if (content[at] === 0) return content.subarray(at).every((byte) => byte === 0) ? records : undefined
    const [, digits] = /^(\d{1,8}) /.exec(content.toString('latin1', at, at + 9)) ?? []
    if (digits === undefined) return undefined
    const end = at + Number(digits)
    const equals = content.indexOf(0x3d, at)
    if (end > content.length || content[end - 1] !== 0x0a || equals < 0 || equals >= end) return undefined
    const key = content.toString('latin1', at + digits.length + 1, equals)
    const value = content.toString('latin1', equals + 1, end - 1)
    // An empty value takes back what an earlier header said.
    if (value === '') records.delete(key)
    else records.set(key, value)
    at = end
  }
  return records
}

/** The name below the root, without what leads nowhere: `./dev//null` is `dev/null`. Nothing when it leads out. */
export function nameBelow(name: string): string | undefined {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.')
  return parts.includes('..') ? undefined : parts.join('/')
}
