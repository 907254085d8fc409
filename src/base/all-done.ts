/** Waits for all of them, also when one fails: nobody is at work any more when the first failure is thrown. */
export async function allDone(tasks: readonly Promise<unknown>[]): Promise<void> {
  for (const end of await Promise.allSettled(tasks)) if (end.status === 'rejected') throw end.reason
}
