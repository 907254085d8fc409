/** Waits for all of them, also when one fails: nobody is at work any more when the first failure is thrown. */
export async function allDone(tasks: readonly Promise<unknown>[]): Promise<void> {
  for (const end of await Promise.allSettled(tasks)) if (end.status === 'rejected') throw end.reason
}

/** How it ends; for who has something else to do first. */
export async function settled<T>(work: Promise<T>): Promise<PromiseSettledResult<T>> {
  const [result] = await Promise.allSettled([work])
  return result
}
