/** An example of a command whose endpoint gives none: what must be given, with values people know. */
import type { Command } from '#rest/command.ts'
import { name } from './command-tree.ts'

const samples: Readonly<Record<string, string>> = {
  vmid: '100',
  snapname: 'before-upgrade',
  userid: 'bob@pve',
  groupid: 'operators',
  roleid: 'Operator',
  tokenid: 'ci',
  realm: 'corp',
  poolid: 'web',
  storage: 'local',
  volume: 'local:backup/vm/100/2026-01-31T02:30:00Z',
  iface: 'vmbr1',
  timeframe: 'day',
  schedule: 'daily',
  server: '192.0.2.10',
  port: '2003',
}

export function exampleOf(command: Command): string {
  const { positional, options } = command
  const words = positional.filter((word) => word !== 'node' && options[word]?.required !== false).map(sampleOf)
  const named = Object.entries(options)
    .filter(([option, facts]) => facts.required && !facts.isSecret && option !== 'node' && !positional.includes(option))
    .map(([option]) => `--${option} ${sampleOf(option)}`)
  return [name(command), ...words, ...named].join(' ')
}

function sampleOf(word: string): string {
  return samples[word] ?? word.toUpperCase()
}
