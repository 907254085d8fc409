/** Runs a drill's application checks: a page or a port from inside the isolated network, a file or a program inside the guest. */
import { waitFor } from '#base/clock.ts'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import { httpGet, tcpConnect } from '#host/network/http-probe.ts'
import { judgeContent, parseProbe, type Probe } from '#recovery/probe.ts'
import type { Scratch } from './drill-facts.ts'
import type { Drilled } from './drilled.ts'

const contentBytes = 4 * 1024 * 1024
/** What was not up with the system may follow it for so long. */
const serviceMs = 15_000

export interface ProbedGuest extends Scratch {
  readonly address: string
  readonly drilled: Drilled
}

/** @returns what each probe saw. @throws Fault `unproven` naming the probe that did not pass */
export async function runProbes(guest: ProbedGuest, probes: readonly string[]): Promise<string> {
  const seen: string[] = []
  for (const [at, text] of probes.entries()) seen.push(await runProbe(parseProbe(text, `probe${at}`), guest))
  return seen.join('; ')
}

async function runProbe(probe: Probe, guest: ProbedGuest): Promise<string> {
  switch (probe.type) {
    case 'http':
      return probeHttp(probe, guest)
    case 'tcp':
      return probePort(probe, guest)
    case 'file':
      return judgeContent(probe, await guest.drilled.readFile(guest, probe.path, contentBytes))
    case 'exec':
      return probeProgram(probe, guest)
    default:
      return probe.type satisfies never
  }
}

async function probeHttp(probe: Probe, guest: ProbedGuest): Promise<string> {
  const { deps, netns, address, signal } = guest
  const url = `http://${address}:${probe.port}${probe.path}`
  const answer = await untilService(`http ${probe.path}`, guest, () =>
    httpGet({ host: deps.host, netns, url, timeoutMs: 5_000, bodyBytes: contentBytes, signal }),
  )
  if (answer.status !== probe.status)
    throw new Fault('unproven', `http ${probe.path}: status ${answer.status}, expected ${probe.status}`)
  return judgeContent(probe, Buffer.from(answer.body))
}

async function probePort({ port }: Probe, guest: ProbedGuest): Promise<string> {
  const { deps, netns, address, signal } = guest
  const { ms } = await untilService(`tcp ${port}`, guest, () =>
    tcpConnect({ host: deps.host, netns, address, port, timeoutMs: 5_000, signal }),
  )
  return `tcp ${port}: took a connection in ${ms} ms`
}

/** A service may come up some seconds after the network; a wrong answer, in contrast, will not mend itself. */
async function untilService<T extends object>(
  what: string,
  { deps, timeoutMs, signal }: ProbedGuest,
  ask: () => Promise<T>,
): Promise<T> {
  let last = 'nothing answered'
  const once = async () => {
    try {
      return await ask()
    } catch (error) {
      if (isFault(error, 'aborted')) throw error
      last = messageOf(error)
      return undefined
    }
  }
  const limits = { what, timeoutMs: Math.min(timeoutMs, serviceMs), everyMs: 200, signal, clock: deps.clock }
  return waitFor(once, limits).catch((error: unknown) => {
    throw isFault(error, 'timeout') ? new Fault('unproven', `${what}: ${last}`) : error
  })
}

async function probeProgram(probe: Probe, guest: ProbedGuest): Promise<string> {
  const { code, output } = await guest.drilled.runProgram(guest, probe.path, contentBytes)
  if (code !== 0) throw new Fault('unproven', `exec ${probe.path}: exit code ${code ?? 'unknown'}, expected 0`)
  return judgeContent(probe, output)
}
