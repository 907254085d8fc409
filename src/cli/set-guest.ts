/** `hako vm set`: afterwards it says what the running guest does not have yet. */
import { isFault } from '#base/fault.ts'
import type { Command } from '#rest/command.ts'
import { parseFor } from './arguments.ts'
import { exitCodes } from './exit.ts'
import { filledPath } from './path.ts'
import { type RunFacts, runCommand } from './run-command.ts'
import { cellText } from './table.ts'
import { say } from './text.ts'

interface PendingRow {
  readonly key: string
  readonly value?: unknown
  readonly pending?: unknown
  readonly delete?: number
}

export async function setGuest(command: Command, args: readonly string[], facts: RunFacts): Promise<number> {
  const code = await runCommand(command, args, facts)
  const { positionals, global } = parseFor(command, args)
  if (code !== exitCodes.ok || global.help || global.quiet || global.output !== 'table') return code
  const { connection, list, terminal } = facts
  const [vmid = ''] = positionals
  const path = filledPath('/nodes/{node}/qemu/{vmid}/pending', { node: list.node, vmid })
  // The change is made. Who may not read it, or whose guest is gone by now, is told no more.
  const { data } = await connection.call('GET', path).catch((error: unknown) => {
    if (isFault(error)) return { data: [] }
    throw error
  })
  const waiting = waitingIn(data as PendingRow[])
  if (waiting.length > 0) {
    const { language } = terminal
    const names = waiting.map(({ key }) => key).join(',')
    terminal.show(say(language, 'pending', waiting.map(({ text }) => text).join('; ')))
    terminal.show(`${say(language, 'nextStep')}: ${say(language, 'pendingRemedy', vmid, names)}`)
  }
  return code
}

/** `memory 64 → 96`, `net1 virtio=… → -` */
function waitingIn(rows: readonly PendingRow[]): { key: string; text: string }[] {
  return rows
    .filter((row) => row.delete !== undefined || row.pending !== undefined)
    .map(({ key, value, pending }) => ({ key, text: `${key} ${cellText(value)} → ${cellText(pending)}` }))
}
