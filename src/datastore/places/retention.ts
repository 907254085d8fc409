/**
 * How long what backups need stays locked, where a place can lock.
 *
 * A backup is promised `retainSeconds`, and it relies on packs that are older. So packs are locked for longer than that by
 * some slack, and whoever collects garbage extends the locks of all that is needed once half the slack is used up: if that
 * happens at least that often, every backup can rely on every pack for as long as it was promised.
 */
const day = 24 * 60 * 60

/** A quarter of what is promised, and two days at least where days are promised. */
export function slackSeconds(retainSeconds: number): number {
  const quarter = Math.ceil(retainSeconds / 4)
  return retainSeconds >= day ? Math.max(quarter, 2 * day) : quarter
}
