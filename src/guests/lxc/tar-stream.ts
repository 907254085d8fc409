/**
 * Looks at a tar archive as it streams by: what comes out are whole members that keep the rules, in bytes as they
 * came in, and an end.
 *
 * Invariant: nothing of a member is let through before all of its headers were read and judged. The program behind
 * this one is kept from doing harm by its jail; here it is decided what is an archive at all, what is left out of it,
 * and how much of it there may be. Memory is bounded by what one member's headers may hold.
 */
import { KiB } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import { type IdMap, outsideId } from '#host/lxc/id-map.ts'
import { shown } from '#storage/archive.ts'
import { isTarEnd, isTarHeader, tarBlock, tarNumber, tarType } from '#storage/tar-header.ts'
import { ByteReader } from './byte-reader.ts'
import { entryOf, nameBelow, paxRecords, type TarEntry } from './tar-entry.ts'

export interface TarRules {
  /** Ids the members may belong to. Without a map, any. */
  readonly idMap?: IdMap | undefined
  /** Leave devices in, as far as they are not below /dev. */
  readonly keepsDevices: boolean
  /** Folder whose content is none of the container's: what somebody put in beside its files. */
  readonly without?: string | undefined
  readonly mostEntries: number
  /** Of the whole archive, unpacked. */
  readonly mostBytes: number
}

/** Counted on while the archive streams by. */
export interface TarCounts {
  entries: number
  /** Of the archive, unpacked. */
  bytes: number
  /** Members left out: what is below /dev, which a container is given anew, and devices. */
  leftOut: number
}

const longestName = 4_096
const mostHeaderBytes = 1_024 * KiB
/** Every block of a sparse file's map describes 21 pieces. */
const mostMapBlocks = 100_000
const outputBytes = 256 * KiB
/** Global facts that change what a member is. Nobody has a reason to say them of all members. */
const consequential = /^(?:path|linkpath|size|uid|gid|GNU\.sparse\..*|SCHILY\..*|LIBARCHIVE\..*|RHT\..*)$/

/** @throws Fault `damaged` for what is no sound archive, `invalid` for what is not let in, `too-large` */
export async function* checkedTar(
  pieces: AsyncIterable<Uint8Array>,
  rules: TarRules,
  counts: TarCounts,
): AsyncGenerator<Uint8Array> {
  const reader = new ByteReader(pieces, (bytes) => {
    counts.bytes += bytes
    if (counts.bytes > rules.mostBytes) throw tooLarge(`unpacked it has more than ${rules.mostBytes} bytes`)
  })
  const gone = new Set<string>()
  try {
    for (;;) {
      const member = await nextMember(reader)
      if (member === undefined) break
      counts.entries += 1
      if (counts.entries > rules.mostEntries) throw tooLarge(`it has more than ${rules.mostEntries} entries`)
      const { entry, headers } = member
      const name = requireSound(entry, rules)
      const isLeftOut = leavesOut(entry, name, rules, gone)
      if (isLeftOut) counts.leftOut += 1
      else yield* headers
      for (let left = padded(entry.storedBytes); left > 0;) {
        const part = await reader.some(left)
        if (part === undefined) throw damaged('it ends in the middle of a member')
        left -= part.length
        if (!isLeftOut) yield part
      }
    }
    // Only now the end: whoever unpacks must not think all is well before the last byte was read and found sound.
    while ((await reader.some(outputBytes)) !== undefined);
    yield Buffer.alloc(2 * tarBlock)
  } finally {
    await reader.close()
  }
}

/** The content of one file of the archive, without a look at what follows; nothing when it has no such file. @throws Fault */
export async function memberIn(
  pieces: AsyncIterable<Uint8Array>,
  path: string,
  mostBytes: number,
): Promise<Buffer | undefined> {
  const reader = new ByteReader(pieces)
  try {
    for (;;) {
      const member = await nextMember(reader)
      if (member === undefined) return undefined
      const { kind, name, storedBytes } = member.entry
      if (!Number.isSafeInteger(storedBytes)) throw damaged(`member '${shown(name)}' has no sound size`)
      if (kind === 'file' && nameBelow(name) === path) {
        if (storedBytes > mostBytes) throw tooLarge(`'${path}' in it has ${storedBytes} bytes`)
        const content = await reader.take(padded(storedBytes))
        if (content === undefined) throw damaged('it ends in the middle of a member')
        return Buffer.from(content.subarray(0, storedBytes))
      }
      for (let left = padded(storedBytes); left > 0;) {
        const part = await reader.some(left)
        if (part === undefined) throw damaged('it ends in the middle of a member')
        left -= part.length
      }
    }
  } finally {
    await reader.close()
  }
}

interface Member {
  readonly entry: TarEntry
  readonly headers: readonly Buffer[]
}

/** Nothing at the end of the archive. */
async function nextMember(reader: ByteReader): Promise<Member | undefined> {
  const headers: Buffer[] = []
  const ahead = new Map<string, string>()
  for (let bytes = 0; ;) {
    const header = reader.takeNow(tarBlock) ?? (await reader.take(tarBlock))
    if (header === undefined) throw damaged('its end is missing')
    if (isTarEnd(header)) {
      if (headers.length === 0) return undefined
      throw damaged('a member is announced and does not come')
    }
    if (!isTarHeader(header)) throw damaged('it is no tar archive, or damaged')
    const type = tarType(header)
    if (!'LKxg'.includes(type)) {
      headers.push(header)
      const entry = entryOf(header, ahead)
      if (entry === undefined) throw invalid(`a member is of the unknown type '${shown(type)}'`)
      if (entry.hasMoreMap) headers.push(...(await sparseMap(reader)))
      return { entry, headers }
    }
    const size = tarNumber(header, 124, 12)
    bytes += tarBlock + size
    if (!(bytes <= mostHeaderBytes)) throw damaged('the description of a member is too long')
    const content = await reader.take(padded(size))
    if (content === undefined) throw damaged('it ends in the middle of a member')
    if (type === 'g') readGlobal(content.subarray(0, size))
    else {
      readAhead(ahead, type, content.subarray(0, size))
      headers.push(header, content)
    }
  }
}

function readAhead(ahead: Map<string, string>, type: string, content: Buffer): void {
  if (type !== 'x') {
    ahead.set(type === 'L' ? 'path' : 'linkpath', content.toString('latin1').replace(/\0.*$/s, ''))
    return
  }
  for (const [key, value] of requireRecords(content)) ahead.set(key, value)
}

/** What is said of all members is not passed on; what would change them is not let in. */
function readGlobal(content: Buffer): void {
  const bad = [...requireRecords(content).keys()].find((key) => consequential.test(key))
  if (bad !== undefined) throw invalid(`it says '${shown(bad)}' of all its members`)
}

function requireRecords(content: Buffer): Map<string, string> {
  const records = paxRecords(content)
  if (records === undefined) throw damaged('the description of a member cannot be read')
  return records
}

async function sparseMap(reader: ByteReader): Promise<Buffer[]> {
  const blocks: Buffer[] = []
  for (let hasMore = true; hasMore;) {
    const block = await reader.take(tarBlock)
    if (block === undefined) throw damaged('it ends in the middle of a member')
    if (blocks.push(block) > mostMapBlocks) throw damaged('the map of a sparse file is too long')
    hasMore = block[504] !== 0
  }
  return blocks
}

/** @returns its name below the root */
function requireSound(entry: TarEntry, { idMap }: TarRules): string {
  const { kind, name, target, uid, gid, storedBytes } = entry
  const says = `member '${shown(name)}'`
  if (name === '' || name.includes('\0') || name.length > longestName) throw damaged(`${says} has no sound name`)
  if (target.length > longestName || target.includes('\0')) throw damaged(`${says} is a link to no sound name`)
  if (!Number.isSafeInteger(storedBytes)) throw damaged(`${says} has no sound size`)
  if (storedBytes > 0 && kind !== 'file') throw damaged(`${says} is a ${kind} with content`)
  const below = nameBelow(name)
  if (below === undefined) throw invalid(`${says} leads out of the root directory`)
  if (kind === 'hard link' && nameBelow(target) === undefined) {
    throw invalid(`${says} is a hard link that leads out of the root directory`)
  }
  for (const [what, id] of [['uid', uid] as const, ['gid', gid] as const]) {
    if (!(id >= 0 && id < 2 ** 32 - 1)) throw damaged(`${says} has no sound ${what}`)
    if (idMap && outsideId(idMap, what, id) === undefined) {
      throw invalid(`${says} belongs to ${what} ${id}, which the id map of the container does not have`)
    }
  }
  return below
}

function leavesOut({ kind, target }: TarEntry, name: string, rules: TarRules, gone: Set<string>): boolean {
  const isGone = (path: string | undefined) => path !== undefined && (path.startsWith('dev/') || gone.has(path))
  if (name.startsWith('dev/') || (rules.without !== undefined && name.startsWith(`${rules.without}/`))) return true
  if (kind === 'hard link') return isGone(nameBelow(target))
  if (kind !== 'device' || rules.keepsDevices) return false
  // Bounded: an archive with more has no use for the links to them either.
  if (gone.size < 10_000) gone.add(name)
  return true
}

function padded(bytes: number): number {
  return Math.ceil(bytes / tarBlock) * tarBlock
}

function damaged(why: string): Fault {
  return new Fault('damaged', `the archive cannot be unpacked: ${why}`)
}

function invalid(why: string): Fault {
  return new Fault('invalid', `the archive is not unpacked: ${why}`)
}

function tooLarge(why: string): Fault {
  return new Fault('too-large', `the archive is not unpacked: ${why}`)
}

/** Small pieces put together, because each costs a call to the kernel; large ones are passed on. */
export async function* inLargePieces(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let held: Uint8Array[] = []
  let bytes = 0
  for await (const piece of pieces) {
    held.push(piece)
    bytes += piece.length
    if (bytes < outputBytes) continue
    yield Buffer.concat(held)
    held = []
    bytes = 0
  }
  if (bytes > 0) yield Buffer.concat(held)
}
