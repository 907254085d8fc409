/** Drills of virtual machines: asked by their console and firmware, and by the guest agent. */
import { waitFor } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { join } from 'node:path'
import { isHeadless } from '#guests/qemu/vga.ts'
import { accelerator } from '#host/qemu/kvm.ts'
import type { DrillDeps, Scratch } from './drill-facts.ts'
import type { Drilled, RanProgram } from './drilled.ts'
import { screenName } from './exhibits.ts'
import { addressesOf, waitForAgent, waitForBoot } from './machine-boot.ts'
import { restoreMachine } from './machine-restore.ts'

export const drilledMachine: Drilled = {
  kind: 'qemu',
  volumes: 'disks',
  contents: ({ disks, pointInTime }) => `${disks.length} disk(s) as of ${pointInTime}`,
  restore: restoreMachine,
  untilUp: waitForBoot,
  untilAnswering: waitForAgent,
  addresses: addressesOf,
  readFile,
  runProgram,
  logs: [
    ['serial.log', 'console.txt'],
    ['firmware.log', 'firmware.txt'],
  ],
  partsExhibit: 'disks.json',
  /** A guest that never started, or is headless, has no screen. */
  async photograph({ guests }, scratch) {
    const { running } = await guests.config(scratch)
    if (!running || isHeadless(running)) return
    await using qmp = await guests.qmp(scratch)
    await qmp.execute('screendump', { filename: join(guests.runDirOf(scratch), screenName), format: 'png' })
  },
  programs,
}

async function readFile({ deps, scratch }: Scratch, path: string, mostBytes: number): Promise<Uint8Array> {
  const handle = await deps.guests.agentExecute<number>(
    scratch,
    'guest-file-open',
    { path, mode: 'r' },
    { timeoutMs: 5_000 },
  )
  try {
    const parts: Buffer[] = []
    for (let size = 0; ;) {
      const part = await deps.guests.agentExecute<{ 'buf-b64': string; eof: boolean }>(
        scratch,
        'guest-file-read',
        { handle, count: 65_536 },
        { timeoutMs: 10_000 },
      )
      const bytes = Buffer.from(part['buf-b64'], 'base64')
      parts.push(bytes)
      size += bytes.length
      if (size > mostBytes)
        throw new Fault('unproven', `file ${path}: larger than the ${mostBytes} bytes a probe reads`)
      if (part.eof || bytes.length === 0) return Buffer.concat(parts)
    }
  } finally {
    await deps.guests.agentExecute(scratch, 'guest-file-close', { handle }, { timeoutMs: 5_000 })
  }
}

interface ExecStatus {
  readonly exited: boolean
  readonly exitcode?: number
  readonly 'out-data'?: string
}

async function runProgram({ deps, scratch, timeoutMs, signal }: Scratch, path: string): Promise<RanProgram> {
  const { pid } = await deps.guests.agentExecute<{ pid: number }>(
    scratch,
    'guest-exec',
    { path, 'capture-output': true },
    { timeoutMs: 5_000 },
  )
  const ended = await waitFor(
    async () => {
      const status = await deps.guests.agentExecute<ExecStatus>(
        scratch,
        'guest-exec-status',
        { pid },
        { timeoutMs: 5_000 },
      )
      return status.exited ? status : undefined
    },
    { what: `exec ${path}`, timeoutMs, everyMs: 100, signal, clock: deps.clock },
  )
  return { code: ended.exitcode, output: Buffer.from(ended['out-data'] ?? '', 'base64') }
}

async function programs({ host, settings }: DrillDeps): Promise<Record<string, string>> {
  const { stdout } = await host.run(['qemu-system-x86_64', '--version'])
  const { accelerator: kind, reason } = await accelerator({ host, cacheDir: settings.cacheDir })
  return { qemu: stdout.split('\n')[0] ?? '', accelerator: kind, acceleratorReason: reason }
}
