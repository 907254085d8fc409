/** `hako vm set`: afterwards it says what the running guest does not have yet, and what will keep it from starting. */
import { isFault } from '#base/fault.ts'
import type { Command } from '#rest/command.ts'
import { parseFor, type Parsed } from './arguments.ts'
import type { Params } from './connection.ts'
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
  const { positionals, params, global } = parseFor(command, args)
  if (code !== exitCodes.ok || global.help || global.quiet || global.output !== 'table') return code
  const { list, terminal } = facts
  const { language } = terminal
  const [vmid = ''] = positionals
  const { node } = list
  const absent = await absentBridges(params, node, facts)
  for (const { name, bridge } of absent) terminal.show(say(language, 'noBridge', name, bridge))
  const path = filledPath('/nodes/{node}/qemu/{vmid}/pending', { node, vmid })
  const waiting = waitingIn(await rowsOf<PendingRow>(path, facts))
  if (waiting.length > 0) {
    const names = waiting.map(({ key }) => key).join(',')
    terminal.show(say(language, 'pending', waiting.map(({ text }) => text).join('; ')))
    terminal.show(`${say(language, 'nextStep')}: ${say(language, 'pendingRemedy', vmid, names)}`)
  }
  return code
}

/** Cards that were given a bridge this node does not have. */
async function absentBridges(params: Parsed['params'], node: string, facts: RunFacts) {
  const wanted = Object.entries(params).flatMap(([name, text]) => {
    const bridge = /^net\d+$/.test(name) ? /(?:^|,)bridge=([^,]+)/.exec(String(text))?.[1] : undefined
    return bridge === undefined ? [] : [{ name, bridge }]
  })
  if (wanted.length === 0) return []
  const rows = await rowsOf<{ readonly iface: string }>(filledPath('/nodes/{node}/network', { node }), facts, {
    type: 'any_bridge',
  })
  // A list without a single bridge may be one this user sees nothing of.
  return rows.length === 0 ? [] : wanted.filter(({ bridge }) => rows.every(({ iface }) => iface !== bridge))
}

/** The change is made. Who may not read it, or whose guest is gone by now, is told no more. */
async function rowsOf<Row>(path: string, { connection }: RunFacts, params: Params = {}): Promise<Row[]> {
  const { data } = await connection.call('GET', path, params).catch((error: unknown) => {
    if (isFault(error)) return { data: [] }
    throw error
  })
  return Array.isArray(data) ? data : []
}

/** `memory 64 → 96`, `net1 virtio=… → -` */
function waitingIn(rows: readonly PendingRow[]): { key: string; text: string }[] {
  return rows
    .filter((row) => row.delete !== undefined || row.pending !== undefined)
    .map(({ key, value, pending }) => ({ key, text: `${key} ${cellText(value)} → ${cellText(pending)}` }))
}
