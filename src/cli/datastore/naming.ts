/** Which backups somebody means. */
import { Fault, missing } from '#base/fault.ts'
import type { Datastore } from '#datastore/datastore.ts'
import { parsePoint, printPoint, type RestorePoint } from '#datastore/point.ts'

const remedy = 'See which there are: hako datastore list.'

/**
 * By its whole name or how that begins, where it is the only one; or the newest of a guest by `host/web` or `vm/100`.
 * @throws Fault `missing`, `invalid` when there are several
 */
export async function pointNamed(datastore: Datastore, name: string): Promise<RestorePoint> {
  const points = await datastore.points()
  const found =
    points.find((point) => printPoint(point) === name) ?? points.findLast((point) => groupOf(point) === name)
  if (found) return found
  const alike = points.filter((point) => printPoint(point).startsWith(name))
  const [only, another] = alike
  if (only && !another && name.startsWith(`${groupOf(only)}/`)) return only
  if (only && another && name.startsWith(`${groupOf(only)}/`)) {
    throw new Fault('invalid', `'${name}' begins the names of ${alike.length} backups`, { remedy })
  }
  if (only) parsePoint(name)
  throw missing('backup', name, { remedy })
}

/**
 * Those that any of the names means: a backup, a guest (`host/web`), or a namespace and all below it (`office`).
 * @throws Fault `missing` for a name that means none
 */
export function namedAmong<T extends { readonly point: RestorePoint }>(
  all: readonly T[],
  names: readonly string[],
): T[] {
  const means = (point: RestorePoint, name: string) =>
    printPoint(point) === name ||
    groupOf(point) === name ||
    (name !== '' && `${point.namespace}.`.startsWith(`${name.replace(/\/$/, '')}.`))
  for (const name of names) {
    if (!all.some(({ point }) => means(point, name))) throw missing('backup', name, { remedy })
  }
  return names.length === 0 ? [...all] : all.filter(({ point }) => names.some((name) => means(point, name)))
}

export function groupOf({ namespace, type, id }: RestorePoint): string {
  return `${namespace === '' ? '' : `${namespace}/`}${type}/${id}`
}
