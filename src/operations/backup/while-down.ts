/** Mode `stop`: the guest is shut down for as long as it is read, and then runs again. */
import { settled } from '#base/all-done.ts'
import type { GuestToBackUp, ReadableGuest } from './half.ts'

/** @param open the guest once it is down */
export async function whileDown(
  { vmid, context: { deps, how, log, signal, onPhase = async () => {} } }: GuestToBackUp,
  open: () => Promise<ReadableGuest>,
): Promise<ReadableGuest> {
  const { guests } = deps
  const timeoutMs = (how.stopWait ?? 10) * 60_000
  await onPhase('pre-stop')
  log('stopping the guest')
  await guests.shutdown(vmid, { timeoutMs, signal, log })
  log('the guest is shut down')
  const startAgain = async () => {
    // Whatever the script says, a guest that ran shall run again.
    const before = await settled(onPhase('pre-restart'))
    await guests.start(vmid, { log })
    log('the guest is started again')
    if (before.status === 'rejected') throw before.reason
    await onPhase('post-restart')
  }
  await using undo = new AsyncDisposableStack()
  undo.defer(startAgain)
  const opened = undo.use(await open())
  const release = undo.move()
  return { ...opened, [Symbol.asyncDispose]: () => release.disposeAsync() }
}
