/**
 * What may change about a backup.
 *
 * What is said of it (notes, protection) and what programs find (the last check, a hint) are objects of their own: no place
 * compares and replaces in one act. Rejected: all in one object, which whoever checks a backup read, changed and replaced;
 * protection that was set in between was gone again.
 */
import { Fault, isFault } from '#base/fault.ts'
import type { Log } from '#base/log.ts'
import { checkProperties } from '#base/schema/check.ts'
import { boolean, integer, optional, string, type StaticProperties } from '#base/schema/schema.ts'
import { formatMaximumBytes } from '../format.ts'
import type { Place } from '../places/place.ts'
import { seal, unseal } from '../sealed.ts'
import { pathOfPoint, printPoint, type RestorePoint } from '../point.ts'

const properties = {
  notes: optional(string({ maxLength: 8_192 })),
  protected: optional(boolean()),
  /** Seconds since 1970. */
  verified: optional(integer({ minimum: 0, maximum: 253_402_300_799 })),
  damage: optional(string({ maxLength: 1_024 })),
  /** What was unusual about its change. */
  hint: optional(string({ maxLength: 1_024 })),
}

export type Marks = StaticProperties<typeof properties>

/** Of what programs find. */
export const foundEnding = '.found'

export interface MarksNeeds {
  readonly place: Place
  readonly log: Log
}

/** Of what is said. Where it is not there, nothing counts. */
export function marksName(point: RestorePoint): string {
  return `marks/${pathOfPoint(point)}`
}

export function foundName(point: RestorePoint): string {
  return `${marksName(point)}${foundEnding}`
}

export function printMarks(marks: Marks): string {
  const set = Object.entries(marks).filter(([, value]) => value !== undefined)
  return seal(Object.fromEntries(set) as Record<string, string | number | boolean>)
}

/** @throws Fault `damaged` */
export function parseMarks(text: string, name: string): Marks {
  const checked = checkProperties(properties, Object(unseal(text, `the marks of ${name}`)) as Record<string, unknown>)
  if (!checked.ok) throw new Fault('damaged', `the marks of ${name} are damaged`)
  return checked.values
}

/**
 * @param listed names of all marks there are: what only some have is asked of those alone
 * @throws Fault `damaged`
 */
export async function readMarks(place: Place, point: RestorePoint, listed?: ListedMarks): Promise<Marks> {
  const said = await readSaid(place, point, listed)
  if (!said) return {}
  const found = await readFound(place, point, listed)
  return found ? { ...parted(said)[0], ...found } : said
}

/** Names of marks, with their versions where the place can tell. */
export type ListedMarks = ReadonlyMap<string, string | undefined>

export async function listMarks(place: Place): Promise<ListedMarks> {
  const listed = new Map<string, string | undefined>()
  for await (const { name, version } of place.list('marks/')) listed.set(name, version)
  return listed
}

/** Another one whenever the marks are others; nothing where the place cannot tell. */
export function versionOfMarks(listed: ListedMarks, point: RestorePoint): string | undefined {
  const [said, found] = [listed.get(marksName(point)), listed.get(foundName(point))]
  return said === undefined || found === undefined ? said : `${said} ${found}`
}

async function readSaid(place: Place, point: RestorePoint, listed?: ListedMarks): Promise<Marks | undefined> {
  const name = marksName(point)
  if (listed?.has(name) === false) return undefined
  const text = await place.get(name, formatMaximumBytes)
  return text && parseMarks(text.toString('utf8'), printPoint(point))
}

/** Where it cannot be read, it may have said that the backup is damaged: that holds until it is checked again. */
async function readFound(place: Place, point: RestorePoint, listed?: ListedMarks): Promise<Marks | undefined> {
  const name = foundName(point)
  if (listed?.has(name) === false) return undefined
  const text = await place.get(name, formatMaximumBytes)
  try {
    return text && parted(parseMarks(text.toString('utf8'), printPoint(point)))[1]
  } catch (fault) {
    if (!isFault(fault, 'damaged')) throw fault
    return { damage: `what was found of ${printPoint(point)} is damaged` }
  }
}

/** What somebody says at the same moment as a program finds something stays, and so does what was found. */
export async function changeMarks(needs: MarksNeeds, point: RestorePoint, change: Marks): Promise<void> {
  const { place } = needs
  const before = await saidBefore(needs, point)
  const [said, found] = parted(change)
  if (Object.keys(found).length > 0) {
    // Where there is one object yet, it holds both.
    const known = (await readFound(place, point)) ?? parted(before.said)[1]
    await place.replace(foundName(point), Buffer.from(printMarks({ ...known, ...found })))
  }
  const name = marksName(point)
  if (Object.keys(said).length > 0 || before.isDamaged) {
    await place.replace(name, Buffer.from(printMarks({ ...before.said, ...said })))
  } else if (!before.isThere) await place.put(name, Buffer.from(printMarks({})))
}

/** With the protection of others who are about to make this backup, or did not finish it. The backup is not there yet. */
export async function putFirstMarks(needs: MarksNeeds, point: RestorePoint, marks: Marks): Promise<void> {
  const name = marksName(point)
  if (await needs.place.put(name, Buffer.from(printMarks(marks)))) return
  const isProtected = (await saidBefore(needs, point)).said.protected === true
  await needs.place.replace(name, Buffer.from(printMarks({ ...marks, ...(isProtected && { protected: true }) })))
}

/** Before the backup goes: marks alone mean that its manifest was lost. */
export async function removeMarks(place: Place, point: RestorePoint): Promise<void> {
  await place.remove(marksName(point))
  await place.remove(foundName(point))
}

interface SaidBefore {
  readonly said: Marks
  readonly isThere: boolean
  readonly isDamaged: boolean
}

/** Where they cannot be read, they may have said that nobody removes it: that holds until somebody says otherwise. */
async function saidBefore({ place, log }: MarksNeeds, point: RestorePoint): Promise<SaidBefore> {
  try {
    const said = await readSaid(place, point)
    return { said: said ?? {}, isThere: said !== undefined, isDamaged: false }
  } catch (fault) {
    if (!isFault(fault, 'damaged')) throw fault
    log.warn('the marks of a backup are damaged: it is protected until somebody lifts that', {
      backup: printPoint(point),
      cause: fault,
    })
    return { said: { protected: true }, isThere: true, isDamaged: true }
  }
}

/** What is said, and what programs find. */
function parted(marks: Marks): [said: Marks, found: Marks] {
  const isFound = ([name]: [string, unknown]) => name === 'verified' || name === 'damage' || name === 'hint'
  const all = Object.entries(marks)
  return [Object.fromEntries(all.filter((one) => !isFound(one))), Object.fromEntries(all.filter(isFound))]
}
