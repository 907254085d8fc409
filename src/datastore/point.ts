/** The name of a restore point: namespace, type, id, moment. It is a path, so it is strict: nothing else may become one. */
import { Fault, invalid } from '#base/fault.ts'
import { type BackupId, printBackupId, printChecked, tryParseBackupId } from './backup-id.ts'

export interface RestorePoint extends BackupId {
  /** Names joined by dots; empty for the root. */
  readonly namespace: string
}

const namespaceShape = /^[a-z0-9][a-z0-9_-]{0,31}(?:\.[a-z0-9][a-z0-9_-]{0,31}){0,7}$/
const rootNamespace = '_'

/** `office/vm/100/2026-11-20T10:00:00Z`, without the namespace where that is the root. */
export function printPoint(point: RestorePoint): string {
  return point.namespace === '' ? printBackupId(point) : `${point.namespace}/${printBackupId(point)}`
}

/** Its path below `backups` and `marks`. */
export function pathOfPoint(point: RestorePoint): string {
  checkNamespace(point.namespace)
  return `${point.namespace === '' ? rootNamespace : point.namespace}/${printChecked(point)}`
}

/** @throws Fault `invalid` */
export function parsePoint(text: string): RestorePoint {
  const parts = text.split('/')
  const namespace = parts.length === 4 ? (parts[0] ?? '') : ''
  const id = tryParseBackupId(parts.slice(-3).join('/'))
  if (id && (parts.length === 3 || parts.length === 4) && (parts.length === 3 || namespaceShape.test(namespace))) {
    return { ...id, namespace }
  }
  throw invalid({ backup: `'${text}' is no backup such as vm/100/2026-11-20T10:00:00Z` })
}

/** Of an object below `backups/`; nothing for what is no backup. */
export function pointOfPath(path: string): RestorePoint | undefined {
  const [namespace = '', ...rest] = path.split('/')
  const id = tryParseBackupId(rest.join('/'))
  if (!id || (namespace !== rootNamespace && !namespaceShape.test(namespace))) return undefined
  return { ...id, namespace: namespace === rootNamespace ? '' : namespace }
}

export function checkNamespace(namespace: string): void {
  if (namespace === '' || namespaceShape.test(namespace)) return
  throw new Fault('invalid', `'${namespace}' cannot be a namespace`, {
    remedy: 'It is made of lower-case letters, digits, _ and -, in up to eight parts joined by dots: office.servers.',
  })
}

/** A namespace and those below it; the root has all. */
export function isBelow(namespace: string, above: string): boolean {
  return above === '' || namespace === above || namespace.startsWith(`${above}.`)
}

export function isSamePoint(a: RestorePoint, b: RestorePoint): boolean {
  return isSameGuest(a, b) && a.time === b.time
}

export function isSameGuest(a: RestorePoint, b: RestorePoint): boolean {
  return a.namespace === b.namespace && a.type === b.type && a.id === b.id
}

/** As far ahead of the clock a new backup may be called, so that it comes after those made a moment ago. */
const aheadSeconds = 60

/**
 * The name of a backup that is made now: nobody else's, and later than what was made of the guest a moment ago. Of several
 * within one second the first may be removed again; the next must not be called by its time and count as the oldest.
 * @param now seconds since 1970
 */
export function newPoint(
  guest: Pick<RestorePoint, 'namespace' | 'type' | 'id'>,
  now: number,
  points: readonly RestorePoint[],
): RestorePoint {
  const point = { ...guest, time: now }
  const taken = new Set(points.filter((one) => isSameGuest(one, point)).map(({ time }) => time))
  for (const time of taken) if (time <= now + aheadSeconds) point.time = Math.max(point.time, time + 1)
  // A clock that was set back by more.
  while (taken.has(point.time)) point.time += 1
  return point
}
