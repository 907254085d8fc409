/** Drills of containers: asked by their console and init, by commands that run inside, and through their file system. */
import { Fault } from '#base/fault.ts'
import { containerAddresses, waitForCommand, waitForInit } from './container-boot.ts'
import { restoreContainer } from './container-restore.ts'
import type { DrillDeps, Scratch } from './drill-facts.ts'
import type { Drilled, RanProgram } from './drilled.ts'

const fileMs = 20_000

export const drilledContainer: Drilled = {
  kind: 'lxc',
  volumes: 'volumes',
  contents: (manifest) => `${manifest.trees.length} file tree(s) as of ${manifest.pointInTime}`,
  restore: restoreContainer,
  untilUp: waitForInit,
  untilAnswering: waitForCommand,
  addresses: containerAddresses,
  readFile,
  runProgram,
  logs: [
    ['console.log', 'console.txt'],
    ['lxc.log', 'lxc.txt'],
  ],
  partsExhibit: 'trees.json',
  programs,
}

/** As its root would read it; no program of its own has a part in it. */
async function readFile({ deps, scratch, signal }: Scratch, path: string, mostBytes: number): Promise<Uint8Array> {
  // A file system that a program inside serves may never answer.
  const patience = AbortSignal.timeout(fileMs)
  const parts: Buffer[] = []
  try {
    const { bytes } = await deps.guests.files.read(scratch, path, AbortSignal.any([signal, patience]))
    let size = 0
    for await (const part of bytes as AsyncIterable<Buffer>) {
      size += part.length
      if (size > mostBytes)
        throw new Fault('unproven', `file ${path}: larger than the ${mostBytes} bytes a probe reads`)
      parts.push(part)
    }
    return Buffer.concat(parts)
  } catch (error) {
    if (!patience.aborted || signal.aborted) throw error
    throw new Fault('unproven', `file ${path}: not read within ${fileMs / 1000} s`, { cause: error })
  }
}

async function runProgram(
  { deps, scratch, timeoutMs, signal }: Scratch,
  path: string,
  mostBytes: number,
): Promise<RanProgram> {
  const how = { command: [path], timeoutMs, outputBytes: mostBytes, signal }
  const { code, stdout } = await deps.guests.runInside(scratch, how)
  return { code, output: Buffer.from(stdout) }
}

async function programs({ host }: DrillDeps): Promise<Record<string, string>> {
  const { stdout } = await host.run(['lxc-start', '--version'])
  return { lxc: stdout.trim() }
}
