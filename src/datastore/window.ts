/**
 * Starts work on the next few inputs while the first is being waited for; results come in order.
 *
 * Never more than `ahead` are under way, so the memory they hold is a number one can state. When the
 * consumer stops early, or one of them fails, the rest are awaited before the end, so that nobody still
 * writes into a buffer that was given away.
 */
export async function* readAhead<In, Out>(
  inputs: AsyncIterable<In> | Iterable<In>,
  ahead: number,
  work: (input: In) => Promise<Out>,
): AsyncGenerator<Out> {
  const underWay: Promise<Out>[] = []
  try {
    for await (const input of inputs) {
      const started = work(input)
      started.catch(() => {}) // Thrown below, when its turn comes.
      underWay.push(started)
      const first = underWay.length >= ahead ? underWay.shift() : undefined
      if (first) yield await first
    }
    for (let first = underWay.shift(); first; first = underWay.shift()) yield await first
  } finally {
    await Promise.allSettled(underWay)
  }
}

/** So many at a time, the last group what is left. */
export async function* grouped<T>(inputs: AsyncIterable<T>, size: number): AsyncGenerator<T[]> {
  let group: T[] = []
  for await (const input of inputs) {
    group.push(input)
    if (group.length < size) continue
    yield group
    group = []
  }
  if (group.length > 0) yield group
}
