/** Pools of ZFS. A machine whose kernel has no ZFS has none, whatever is installed. */
import { existsSync } from 'node:fs'
import type { Host } from '../host.ts'
import { runTool } from '../tool.ts'

export interface ZfsPool {
  readonly name: string
  readonly sizeBytes: number
  readonly usedBytes: number
  readonly freeBytes: number
  readonly fragmentation: number
  readonly dedup: number
  readonly health: string
}

export async function zfsPools(host: Host): Promise<ZfsPool[]> {
  if (!existsSync('/dev/zfs')) return []
  const columns = 'name,size,alloc,free,frag,dedup,health'
  const { stdout } = await runTool(host, ['zpool', 'list', '-H', '-p', '-o', columns])
  return parsePools(stdout)
}

/** Reads `zpool list -Hp`: columns with tabs between them; what is unknown is a dash. */
export function parsePools(text: string): ZfsPool[] {
  const number = (word = '') => Number(word.replace(/[%x]$/, '').replace(/^-$/, '0'))
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => line.split('\t'))
    .map(([name = '', size, alloc, free, frag, dedup, health = '']) => ({
      name,
      sizeBytes: number(size),
      usedBytes: number(alloc),
      freeBytes: number(free),
      fragmentation: number(frag),
      dedup: number(dedup),
      health,
    }))
}
