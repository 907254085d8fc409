/** A guest asked from inside, through its agent. */
import assert from 'node:assert/strict'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { startInGuest, statusInGuest } from '#guests/agent-files.ts'
import type { AgentClient } from '#host/qemu/guest-agent.ts'
import type { GuestWorld } from './qemu-world.ts'

export async function untilAgentAnswers({ guests }: GuestWorld, vmid: Vmid): Promise<void> {
  const answers = async () => {
    try {
      await guests.agentExecute(vmid, 'guest-ping', {}, { timeoutMs: 1_000 })
      return true
    } catch (fault) {
      if (isFault(fault, 'unavailable') || isFault(fault, 'timeout')) return false
      throw fault
    }
  }
  await waitFor(answers, { what: 'the guest agent', timeoutMs: 120_000, everyMs: 100 })
}

/** What a script printed that ended well. */
export async function said(agent: AgentClient, script: string): Promise<string> {
  const pid = await startInGuest(agent, ['/bin/sh', '-c', script])
  const ended = await waitFor(
    async () => {
      const status = await statusInGuest(agent, pid)
      return status.exited && status
    },
    { what: script, timeoutMs: 60_000 },
  )
  assert.equal(ended.exitcode, 0, `${script}: ${ended['err-data'] ?? ''}`)
  return (ended['out-data'] ?? '').trimEnd()
}
