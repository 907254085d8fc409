/**
 * What lies in a tar archive (an OVA is one): names, and where each member's bytes are, so that they can be read in
 * place instead of being unpacked.
 *
 * The archive is not trusted. Headers are read one by one, each is checked, and their number and the length of names
 * have limits; links, devices and directories are no members. Rejected: `tar` itself, which unpacks.
 */
import { open } from 'node:fs/promises'
import { Fault } from '#base/fault.ts'
import { asFileFault } from '#host/files.ts'
import { isTarEnd, isTarHeader, tarBlock, tarName, tarNumber, tarType } from './tar-header.ts'

export interface Member {
  /** As it is written there; may be any text. */
  readonly name: string
  readonly offset: number
  readonly sizeBytes: number
}

const block = tarBlock
const mostHeaders = 1_000
const longestName = 1_024

/** Regular files, in the order of the archive. @throws Fault `damaged`, `missing` */
export async function membersOf(path: string): Promise<Member[]> {
  await using file = await open(path, 'r').catch((cause: unknown) => {
    throw asFileFault(cause, path)
  })
  const { size } = await file.stat()
  const bytesAt = async (offset: number, length: number) => {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, offset)
    return buffer.subarray(0, bytesRead)
  }
  const members: Member[] = []
  let [longName, longSize]: [string | undefined, number | undefined] = [undefined, undefined]
  let at = 0
  for (let headers = 0; at + block <= size; headers += 1) {
    const header = await bytesAt(at, block)
    if (isTarEnd(header)) return members
    if (headers === mostHeaders) throw damaged(path, `it has more than ${mostHeaders} entries`)
    requireHeader(path, header)
    const type = tarType(header)
    const isExtension = 'LKxg'.includes(type)
    const sizeBytes = isExtension ? tarNumber(header, 124, 12) : (longSize ?? tarNumber(header, 124, 12))
    const offset = at + block
    if (!Number.isSafeInteger(sizeBytes) || offset + sizeBytes > size) throw damaged(path, 'a member reaches beyond it')
    if (isExtension) {
      // Longer ones belong to things nobody here asks for.
      const text = sizeBytes <= 64 * block ? (await bytesAt(offset, sizeBytes)).toString('utf8') : ''
      if (type === 'L') longName = text.replace(/\0.*$/s, '')
      if (type === 'x') [longName, longSize] = extendedFacts(text, longName, longSize)
    } else {
      const name = longName ?? tarName(header)
      if (name.length > longestName) throw damaged(path, 'a name in it is too long')
      if (type === '0' || type === '\0') members.push({ name, offset, sizeBytes })
      ;[longName, longSize] = [undefined, undefined]
    }
    at = offset + Math.ceil(sizeBytes / block) * block
  }
  throw damaged(path, 'its end is missing')
}

/** The content of a small member, as text. @throws Fault `too-large` */
export async function memberText(path: string, member: Member, mostBytes: number): Promise<string> {
  if (member.sizeBytes > mostBytes) {
    throw new Fault('too-large', `'${shown(member.name)}' in '${path}' is larger than ${mostBytes} bytes`)
  }
  await using file = await open(path, 'r')
  const { buffer, bytesRead } = await file.read(Buffer.alloc(member.sizeBytes), 0, member.sizeBytes, member.offset)
  return buffer.toString('utf8', 0, bytesRead)
}

/** A foreign name, for a message. */
export function shown(name: string): string {
  return name.slice(0, 200).replaceAll(/[^\x20-\x7e]/g, '?')
}

function requireHeader(path: string, header: Buffer): void {
  if (!isTarHeader(header)) throw damaged(path, 'it is no tar archive, or damaged')
}

/** `30 path=a name\n`: facts of the entry that follows. */
function extendedFacts(
  text: string,
  name: string | undefined,
  size: number | undefined,
): [string | undefined, number | undefined] {
  const path = /^\d+ path=(.*)$/m.exec(text)?.[1]
  const bytes = /^\d+ size=(\d+)$/m.exec(text)?.[1]
  return [path ?? name, bytes === undefined ? size : Number(bytes)]
}

function damaged(path: string, why: string): Fault {
  return new Fault('damaged', `archive '${path}' cannot be read: ${why}`)
}
