/**
 * Ids as they are inside a container, and back: owners, those in access lists, and the root id of capabilities.
 *
 * A catalogue holds ids inside only, so a tree can be restored under any map, or under none. An id that is none of the
 * container's (somebody on the node wrote into its tree) is nobody's inside, as the container itself sees it.
 */
import { type Attribute, encoded, parseAttributes } from '#host/files/attribute-calls.ts'
import { type IdMap, type IdRange, insideId, outsideId } from '#host/lxc/id-map.ts'

export const nobody = 65_534

const [userEntry, groupEntry] = [0x02, 0x08]
const whom: Readonly<Record<number, string>> = { 1: 'user', 2: 'user', 4: 'group', 8: 'group', 16: 'mask', 32: 'other' }
const [aclVersion, aclHeadBytes, aclEntryBytes] = [2, 4, 8]
const [capabilityVersion2, capabilityVersion3, versionMask] = [0x0200_0000, 0x0300_0000, 0xff00_0000]

export interface IdShift {
  /** Nothing for an id the map does not have. */
  readonly idOf: (kind: IdRange['kind'], id: number) => number | undefined
}

export function inward(map: IdMap | undefined): IdShift | undefined {
  return map && { idOf: remembering((kind, id) => insideId(map, kind, id)) }
}

export function outward(map: IdMap | undefined): IdShift | undefined {
  return map && { idOf: remembering((kind, id) => outsideId(map, kind, id)) }
}

/** Most entries belong to whom the last one belonged to. */
function remembering(ask: IdShift['idOf']): IdShift['idOf'] {
  const last = {
    uid: { id: -1, answer: undefined as number | undefined },
    gid: { id: -1, answer: undefined as number | undefined },
  }
  return (kind, id) => {
    if (last[kind].id !== id) last[kind] = { id, answer: ask(kind, id) }
    return last[kind].answer
  }
}

export interface Shifted<T> {
  readonly value: T
  /** Ids the map did not have. */
  readonly foreign: number
}

/** Attributes of a file, with the ids in them shifted. What cannot be, is nobody's; such a capability is left out. */
export function shiftAttributes(bytes: Buffer, shift: IdShift | undefined): Shifted<Buffer> {
  if (shift === undefined || bytes.length === 0) return { value: bytes, foreign: 0 }
  let foreign = 0
  const kept: Attribute[] = []
  for (const attribute of parseAttributes(bytes) ?? []) {
    const shifted = shiftAttribute(attribute, shift)
    foreign += shifted.foreign
    if (shifted.value) kept.push(shifted.value)
  }
  return { value: Buffer.concat(kept.map(encoded)), foreign }
}

export function shiftAttribute(attribute: Attribute, shift: IdShift): Shifted<Attribute | undefined> {
  const { name, value } = attribute
  if (name.startsWith('system.posix_acl_')) {
    const shifted = shiftAcl(value, shift)
    return { value: { name, value: shifted.value }, foreign: shifted.foreign }
  }
  if (name !== 'security.capability') return { value: attribute, foreign: 0 }
  const shifted = shiftCapability(value, shift)
  return { value: shifted && { name, value: shifted }, foreign: shifted ? 0 : 1 }
}

/** 4 bytes version, then for each entry 2 bytes whom it is for, 2 what they may, 4 the id. */
function shiftAcl(value: Buffer, { idOf }: IdShift): Shifted<Buffer> {
  if (value.length < aclHeadBytes || value.readUInt32LE(0) !== aclVersion) return { value, foreign: 0 }
  const shifted = Buffer.from(value)
  let foreign = 0
  for (let at = aclHeadBytes; at + aclEntryBytes <= value.length; at += aclEntryBytes) {
    const tag = value.readUInt16LE(at)
    if (tag !== userEntry && tag !== groupEntry) continue
    const kind = tag === userEntry ? 'uid' : 'gid'
    const id = idOf(kind, value.readUInt32LE(at + 4))
    if (id === undefined) foreign += 1
    shifted.writeUInt32LE(id ?? idOf(kind, nobody) ?? nobody, at + 4)
  }
  return { value: shifted, foreign }
}

/**
 * Capabilities of an unprivileged container name the root they are in force for (version 3, 24 bytes); inside it reads
 * as the plain form (version 2, 20 bytes). Nothing when they belong to another root than the container's own.
 */
function shiftCapability(value: Buffer, { idOf }: IdShift): Buffer | undefined {
  if (value.length < 20) return undefined
  const word = value.readUInt32LE(0)
  const version = (word & versionMask) >>> 0
  const root = version === capabilityVersion3 && value.length >= 24 ? value.readUInt32LE(20) : 0
  const shifted = idOf('uid', root)
  if (shifted === undefined) return undefined
  const plain = value.subarray(4, 20)
  const head = Buffer.alloc(4)
  if (shifted === 0) {
    head.writeUInt32LE((word & ~versionMask) | capabilityVersion2, 0)
    return Buffer.concat([head, plain])
  }
  head.writeUInt32LE(((word & ~versionMask) | capabilityVersion3) >>> 0, 0)
  const tail = Buffer.alloc(4)
  tail.writeUInt32LE(shifted, 0)
  return Buffer.concat([head, plain, tail])
}

/** `user::rw-,user:1000:r--,…`. Nothing for what is no access list of the form that is known. */
export function accessListText(value: Buffer): string | undefined {
  if (value.length < aclHeadBytes || value.readUInt32LE(0) !== aclVersion) return undefined
  const lines: string[] = []
  for (let at = aclHeadBytes; at + aclEntryBytes <= value.length; at += aclEntryBytes) {
    const [tag, may, id] = [value.readUInt16LE(at), value.readUInt16LE(at + 2), value.readUInt32LE(at + 4)]
    const rights = ['r', 'w', 'x'].map((letter, bit) => ((may & (4 >> bit)) === 0 ? '-' : letter)).join('')
    lines.push(`${whom[tag] ?? 'other'}:${tag === userEntry || tag === groupEntry ? id : ''}:${rights}`)
  }
  return lines.join(',')
}
