/** Runs a drill's application checks: a page from inside the isolated network, a file or a program through the agent. */
import { waitFor } from '#base/clock.ts'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import { httpGet } from '#host/http-probe.ts'
import { judgeContent, parseProbe, type Probe } from '#recovery/probe.ts'
import type { Scratch } from './drill-facts.ts'

const contentBytes = 4 * 1024 * 1024

/** @returns what each probe saw. @throws Fault `unproven` naming the probe that did not pass */
export async function runProbes(
  facts: Scratch & { readonly probes: readonly string[]; readonly address: string },
): Promise<string> {
  const seen: string[] = []
  for (const [at, text] of facts.probes.entries()) seen.push(await runProbe(parseProbe(text, `probe${at}`), facts))
  return seen.join('; ')
}

async function runProbe(probe: Probe, facts: Scratch & { readonly address: string }): Promise<string> {
  switch (probe.type) {
    case 'http':
      return probeHttp(probe, facts)
    case 'file':
      return judgeContent(probe, await readGuestFile(probe.path, facts))
    case 'exec':
      return probeProgram(probe, facts)
    default:
      return probe.type satisfies never
  }
}

/** A service may come up some seconds after the network; wrong content, in contrast, will not mend itself. */
async function probeHttp(
  probe: Probe,
  { deps, netns, address, timeoutMs, signal }: Scratch & { readonly address: string },
): Promise<string> {
  const url = `http://${address}:${probe.port}${probe.path}`
  let last = 'nothing answered'
  const answer = await waitFor(
    async () => {
      try {
        return await httpGet({ host: deps.host, netns, url, timeoutMs: 5_000, bodyBytes: contentBytes })
      } catch (error) {
        if (isFault(error, 'aborted')) throw error
        last = messageOf(error)
        return undefined
      }
    },
    { what: url, timeoutMs: Math.min(timeoutMs, 15_000), everyMs: 200, signal, clock: deps.clock },
  ).catch((error: unknown) => {
    throw isFault(error, 'timeout') ? new Fault('unproven', `http ${probe.path}: ${last}`) : error
  })
  if (answer.status !== probe.status)
    throw new Fault('unproven', `http ${probe.path}: status ${answer.status}, expected ${probe.status}`)
  return judgeContent(probe, Buffer.from(answer.body))
}

async function readGuestFile(path: string, { deps, scratch }: Scratch): Promise<Uint8Array> {
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
      if (size > contentBytes)
        throw new Fault('unproven', `file ${path}: larger than the ${contentBytes} bytes a probe reads`)
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

async function probeProgram(probe: Probe, { deps, scratch, timeoutMs, signal }: Scratch): Promise<string> {
  const { pid } = await deps.guests.agentExecute<{ pid: number }>(
    scratch,
    'guest-exec',
    { path: probe.path, 'capture-output': true },
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
    { what: `exec ${probe.path}`, timeoutMs, everyMs: 100, signal, clock: deps.clock },
  )
  if (ended.exitcode !== 0)
    throw new Fault('unproven', `exec ${probe.path}: exit code ${ended.exitcode ?? 'unknown'}, expected 0`)
  return judgeContent(probe, Buffer.from(ended['out-data'] ?? '', 'base64'))
}
