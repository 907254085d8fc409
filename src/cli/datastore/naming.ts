/** Which backup somebody means. */
import { missing } from '#base/fault.ts'
import type { Datastore } from '#datastore/datastore.ts'
import { parsePoint, printPoint, type RestorePoint } from '#datastore/point.ts'

/** By its whole name, or the newest of a guest by `host/web` or `vm/100`. @throws Fault `missing` */
export async function pointNamed(datastore: Datastore, name: string): Promise<RestorePoint> {
  const points = await datastore.points()
  const found =
    points.find((point) => printPoint(point) === name) ?? points.findLast((point) => groupOf(point) === name)
  if (found) return found
  if (points.some((point) => printPoint(point).startsWith(name))) parsePoint(name)
  throw missing('backup', name, { remedy: 'See which there are: hako datastore list.' })
}

function groupOf({ namespace, type, id }: RestorePoint): string {
  return `${namespace === '' ? '' : `${namespace}/`}${type}/${id}`
}
