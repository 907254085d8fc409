/** Many things of one kind, a few at a time. */

/**
 * What `act` makes of each item, in the order of the items; at most `atOnce` of them are under way at once. After
 * a failure no further one begins, and what is under way is left to end by itself.
 */
export async function inTurns<T, R>(
  items: readonly T[],
  atOnce: number,
  act: (item: T) => Promise<R> | R,
): Promise<R[]> {
  const made: R[] = []
  const turns = items.entries()
  let hasFailed = false
  const lane = async () => {
    for (const [at, item] of turns) {
      if (hasFailed) return
      made[at] = await act(item)
    }
  }
  const watched = async () => {
    try {
      await lane()
    } catch (error) {
      hasFailed = true
      throw error
    }
  }
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, watched))
  return made
}
