/** On which TCP ports programs wait to be called, in the network of a process. */
import { readIfPresent } from '../files.ts'

/** Sorted, each once; none when the process is gone. */
export async function listeningPorts(pid: number): Promise<number[]> {
  const tables = await Promise.all(['tcp', 'tcp6'].map((name) => readIfPresent(`/proc/${pid}/net/${name}`)))
  const ports = tables.flatMap((table) => parseListening(table ?? ''))
  return [...new Set(ports)].toSorted((a, b) => a - b)
}

/** Of the kernel's table: `0: 0100007F:1F90 00000000:0000 0A …`, where 0A says that it listens. */
export function parseListening(table: string): number[] {
  return [...table.matchAll(/^ *\d+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} 0A /gm)].map(([, port = '']) =>
    Number.parseInt(port, 16),
  )
}
