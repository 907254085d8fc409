/**
 * Holds a guest's file systems still for a moment, through its agent, so that what is on its disks is
 * what a clean unmount would leave. Without an agent the backup is as after a power cut, which journals
 * survive; the manifest says which of the two it is.
 */
import { isFault, messageOf } from '#base/fault.ts'
import type { AgentClient } from '#host/qemu/guest-agent.ts'
import type { GuestService } from '#guests/service.ts'
import type { Vmid } from '#base/ids.ts'

export type FreezeVerdict =
  | { readonly state: 'frozen'; readonly fileSystems: number; readonly durationMs: number }
  | { readonly state: 'not-frozen'; readonly reason: string }

/** A guest flushes its caches first; under load that takes a while. */
const freezeMs = 60_000
const thawMs = 30_000
const thawAttempts = 3

/**
 * Runs `work` while the guest's file systems are frozen, or as they are when they cannot be.
 * The guest is thawed whatever happens; that it could not be is a fault, however well the work went.
 */
export async function whileFrozen<T>(
  { guests, vmid, isWanted }: { guests: GuestService; vmid: Vmid; isWanted: boolean },
  work: () => Promise<T>,
): Promise<{ result: T; verdict: FreezeVerdict }> {
  const frozen = isWanted ? await freeze(guests, vmid) : { reason: 'the guest agent is not enabled for this' }
  if ('reason' in frozen) return { result: await work(), verdict: { state: 'not-frozen', reason: frozen.reason } }
  const startedMs = performance.now()
  let result: T
  try {
    result = await work()
  } finally {
    await thaw(guests, vmid, frozen.agent)
    await frozen.agent[Symbol.asyncDispose]()
  }
  const durationMs = Math.round(performance.now() - startedMs)
  return { result, verdict: { state: 'frozen', fileSystems: frozen.fileSystems, durationMs } }
}

async function freeze(
  guests: GuestService,
  vmid: Vmid,
): Promise<{ agent: AgentClient; fileSystems: number } | { reason: string }> {
  let agent: AgentClient
  try {
    agent = await guests.agent(vmid)
  } catch (cause) {
    return { reason: messageOf(cause) }
  }
  try {
    const fileSystems = await agent.execute<number>('guest-fsfreeze-freeze', {}, { timeoutMs: freezeMs })
    return { agent, fileSystems }
  } catch (cause) {
    await agent[Symbol.asyncDispose]()
    // An agent that says no has thawed what it froze; one that says nothing may still be at it.
    if (!isFault(cause, 'failed')) await thaw(guests, vmid)
    return { reason: messageOf(cause) }
  }
}

/** Harmless when nothing is frozen. @throws Fault when the agent does not do it, after several attempts */
export async function thaw(guests: GuestService, vmid: Vmid, first?: AgentClient): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    const own = attempt === 1 && first ? undefined : await guests.agent(vmid)
    try {
      const agent = own ?? first
      if (agent && (own === undefined || (await isFrozen(agent)))) {
        await agent.execute('guest-fsfreeze-thaw', {}, { timeoutMs: thawMs })
      }
      return
    } catch (cause) {
      if (attempt === thawAttempts) throw cause
    } finally {
      await own?.[Symbol.asyncDispose]()
    }
  }
}

/** An agent that does not know the question cannot have frozen anything. */
async function isFrozen(agent: AgentClient): Promise<boolean> {
  try {
    return (await agent.execute('guest-fsfreeze-status', {}, { timeoutMs: thawMs })) === 'frozen'
  } catch (cause) {
    if (isFault(cause, 'failed')) return false
    throw cause
  }
}
