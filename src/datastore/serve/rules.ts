/**
 * What somebody with a token may put, replace and remove. Whoever only adds can spoil nothing that is there: what has the
 * name of a hash must be of that hash, a manifest signed, and how a datastore is opened is not theirs to change.
 */
import { Fault } from '#base/fault.ts'
import { GiB, MiB } from '#base/bytes.ts'
import type { Datastore } from '../datastore.ts'
import { manifestName, parseManifest } from '../points/manifest.ts'
import { packMaximumBytes } from '../format.ts'
import { foundEnding } from '../points/marks.ts'
import { pointOfPath } from '../point.ts'
import { isThere, type Place } from '../places/place.ts'
import { unseal } from '../sealed.ts'
import type { Right } from '../places/https/tokens.ts'

interface FolderRule {
  readonly maximumBytes: number
  /** Its name says its hash: it is taken in as a file. */
  readonly isHashed?: boolean
}

/** By what names begin with. Nothing else can be put. */
const folders: Readonly<Record<string, FolderRule>> = {
  'packs/': { maximumBytes: packMaximumBytes, isHashed: true },
  'segments/': { maximumBytes: 10 * GiB, isHashed: true },
  'backups/': { maximumBytes: 96 * MiB },
  'marks/': { maximumBytes: 64 * 1024 },
  'leases/': { maximumBytes: 4_096 },
  'suspects/': { maximumBytes: 0 },
  'condemned/': { maximumBytes: GiB },
  'keys/': { maximumBytes: 4 * MiB },
  'canary/': { maximumBytes: 4_096 },
  format: { maximumBytes: 64 * 1024 },
  checked: { maximumBytes: 256 * MiB },
}

/** @throws Fault `invalid` for what has no place in a datastore */
export function ruleOf(name: string): FolderRule {
  const found = Object.entries(folders).find(([folder]) =>
    folder.endsWith('/') ? name.startsWith(folder) : name === folder,
  )
  if (!found) throw new Fault('invalid', `'${name}' is not the name of anything in a datastore`)
  const [, rule] = found
  if (rule.isHashed === true && !/\/[0-9a-f]{64}$/.test(name))
    throw new Fault('invalid', `'${name}' does not end with a hash`)
  return rule
}

export interface Wish {
  readonly place: Place
  /** Nothing where none is made yet. */
  readonly datastore: Datastore | undefined
  readonly name: string
  readonly may: ReadonlySet<Right>
  /** Leases are for those who put them to renew and to give back. */
  readonly isOwnLease: boolean
}

/**
 * Asked before the content has come, and where it is not of its own hash once more with it: others may have come meanwhile.
 * @param content without it, what it has a say in is let pass
 * @throws Fault `denied`, `damaged`, `invalid`
 */
export async function checkPut(wish: Wish, isNew: boolean, content?: Buffer): Promise<void> {
  const { place, datastore, name, may } = wish
  // Whoever reads says so, that nobody takes away what they read.
  if (!may.has('write') && may.has('read') && wish.isOwnLease && mayBeReadLease(name, content)) return
  requireRight(may, 'write', name)
  if (name.startsWith('backups/')) checkManifest(datastore, name, content)
  if (may.has('delete')) return
  const isMade = datastore !== undefined
  const marked = markedBy(name)
  // Notes and protection come before the manifest they belong to, and are somebody else's afterwards.
  const isBefore = marked !== undefined && !(await isThere(place, marked))
  if (!isNew && !isBefore && !wish.isOwnLease) throw denied('replaces nothing', name)
  if (marked !== undefined && name.endsWith(foundEnding) && !isBefore)
    throw denied('says nothing of what is there', name)
  if (/^(?:keys\/|format$)/.test(name) && isMade) throw denied('does not change how a datastore is opened', name)
  if (name.startsWith('condemned/')) throw denied('condemns nothing', name)
}

/** @throws Fault `denied` */
export function checkRemove({ name, may, isOwnLease }: Pick<Wish, 'name' | 'may' | 'isOwnLease'>): void {
  if (may.has('delete') || isOwnLease) return
  throw denied('removes nothing', name)
}

function mayBeReadLease(name: string, content: Buffer | undefined): boolean {
  if (!name.startsWith('leases/')) return false
  return !content || Object(unseal(content.toString('utf8'), name)).kind === 'read'
}

function checkManifest(datastore: Datastore | undefined, name: string, content: Buffer | undefined): void {
  const point = pointOfPath(name.slice('backups/'.length))
  if (!point || manifestName(point) !== name || !datastore) throw new Fault('invalid', `'${name}' is no backup`)
  if (!content || parseManifest(content.toString('utf8'), point).isSigned(datastore.facts.signer)) return
  throw new Fault('denied', `'${name}' is not signed by this datastore`)
}

/** The manifest of the backup that marks are of. */
function markedBy(name: string): string | undefined {
  if (!name.startsWith('marks/')) return undefined
  const path = name.slice('marks/'.length)
  return `backups/${path.endsWith(foundEnding) ? path.slice(0, -foundEnding.length) : path}`
}

export function requireRight(may: ReadonlySet<Right>, right: Right, what: string): void {
  if (!may.has(right)) throw new Fault('denied', `the token has no right to ${right} '${what}'`)
}

function denied(how: string, name: string): Fault {
  return new Fault('denied', `the token adds, and ${how}: '${name}'`)
}
