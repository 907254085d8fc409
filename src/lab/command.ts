/** `hako lab`, `hako lab down`, `hako doctor`: what a person types, and the order in which things happen. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { systemClock, waitFor } from '#base/clock.ts'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { machine } from '#host/exec.ts'
import type { Settings } from '#settings.ts'
import { fieldsOf, type LabApi, labApi, requireGood } from './api.ts'
import { runningPort, startDaemon, stopNode, untilDaemonEnds } from './daemon.ts'
import { takeDown } from './down.ts'
import { freshLogin, isThere, proveRestore } from './lab.ts'
import { labContainer } from './lab-container.ts'
import { type Lab, step } from './lab-guest.ts'
import { labMachine } from './lab-machine.ts'
import { labSettings } from './lab-settings.ts'
import { checkPackages } from './packages.ts'
import { type Check, names, preflight } from './preflight.ts'
import { preflightTable } from './preflight-table.ts'
import { markAsLab, requireLab } from './mark.ts'
import { ensureRecoveryKey } from './recovery-key.ts'
import type { LabTerminal } from './terminal.ts'
import { say } from './text.ts'

/** Exit code of a proof that failed; the CLI's table has the same. */
const unproven = 7
const endMs = 60_000

export async function labUp(args: readonly string[], terminal: LabTerminal): Promise<number> {
  const { settings: wanted, isToEnd } = readArguments(args)
  await markAsLab(wanted)
  const port = await runningPort(wanted)
  const settings = port === undefined ? wanted : { ...wanted, apiPort: port }
  const hasContainers = await showPreflight(settings, terminal, port !== undefined)
  let isProven: boolean
  try {
    using api = labApi(settings, terminal.signal)
    await ensureNode(settings, api, terminal, port !== undefined)
    const { user, secret } = await freshLogin({ api, random: systemRandom })
    terminal.out(`\n  ${say(terminal.language, 'api')}  https://${settings.apiHost}:${settings.apiPort}`)
    terminal.out(`       ${say(terminal.language, 'login', user, secret)} (${say(terminal.language, 'loginNote')})\n`)
    const tools = { host: machine(), clock: systemClock, random: systemRandom }
    const lab: Lab = { settings, api, terminal, ...tools }
    await ensureRecoveryKey(lab)
    isProven = await proveAll(lab, hasContainers)
    if (!isToEnd) await untilCtrlC(settings, terminal)
  } catch (error) {
    // Ctrl-C ends the lab wherever it is; any other failure leaves the node up to be looked at.
    if (terminal.signal.aborted || isToEnd) await end(settings, terminal)
    throw error
  }
  await end(settings, terminal)
  return isProven ? 0 : unproven
}

/** One after the other. What the container is made of is fetched while the virtual machine has its turn. */
async function proveAll(lab: Lab, hasContainers: boolean): Promise<boolean> {
  const { terminal } = lab
  const given = new AbortController()
  const quiet: LabTerminal = { ...terminal, signal: AbortSignal.any([terminal.signal, given.signal]) }
  // Not at once with this: both look for packages, and one of them would be refused.
  const image = await step(lab, 'image', () => labMachine.prepare(lab))
  const isWanted = hasContainers && !(await isThere(lab, labContainer))
  const template = isWanted ? labContainer.prepare({ ...lab, terminal: quiet }) : undefined
  // Its failure is told where it is waited for.
  template?.catch(() => {})
  try {
    const isMachineProven = await proveRestore(lab, labMachine, image)
    terminal.out('')
    if (hasContainers) return (await proveRestore(lab, labContainer, template)) && isMachineProven
    terminal.show(`  - ${say(terminal.language, 'noContainers')}`)
    return isMachineProven
  } finally {
    given.abort()
    await template?.catch(() => {})
  }
}

function readArguments(args: readonly string[]): { settings: Settings; isToEnd: boolean } {
  const rest = [...args]
  let [isToEnd, port] = [false, undefined as string | undefined]
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === '--exit') isToEnd = true
    else if (word === '--port') port = rest.shift() ?? ''
    else if (word.startsWith('--port=')) port = word.slice('--port='.length)
    else if (word === '--lang' || word === '--instance') rest.shift()
    else if (!word.startsWith('--lang=')) {
      throw new Fault('invalid', `hako lab does not know '${word}'`, { remedy: 'hako lab [--exit] [--port N]' })
    }
  }
  return { settings: labSettings({ ...process.env, ...(port === undefined ? {} : { HAKO_API_PORT: port }) }), isToEnd }
}

/** @returns whether containers can run here. @throws Fault `unavailable` naming what the lab cannot be without */
async function showPreflight(settings: Settings, terminal: LabTerminal, isRunning: boolean): Promise<boolean> {
  const checks = await preflight({ host: machine(), settings, clock: systemClock, isRunning })
  terminal.out(`${say(terminal.language, 'preflight')}\n${preflightTable(checks, terminal.language, terminal.width)}\n`)
  const missing = checks.filter(({ state }) => state === 'missing')
  if (missing.length === 0) return checks.some(({ name, state }) => name === names.containers && state === 'ok')
  const words = missing.map(({ name, found }) => `${name[terminal.language]} (${found[terminal.language]})`)
  throw new Fault('unavailable', `this machine lacks: ${words.join('; ')}`, {
    remedy: missing.map(({ means }) => means[terminal.language]).join(' '),
  })
}

async function ensureNode(
  settings: Settings,
  api: LabApi,
  { language, show, signal }: LabTerminal,
  wasRunning: boolean,
): Promise<void> {
  const started = systemClock.monotonic()
  const answers = async () => {
    try {
      return fieldsOf(await api.get('/version')).version !== undefined
    } catch (error) {
      if (isFault(error, 'unavailable')) return false
      throw error
    }
  }
  show(`  … ${say(language, 'nodeStarts')}`, true)
  // A daemon that was started a moment ago may not answer yet.
  if (wasRunning) await waitFor(answers, { what: 'the running node', timeoutMs: 30_000, signal })
  else await startDaemon(settings, answers, signal)
  const took = ((systemClock.monotonic() - started) / 1000).toFixed(1)
  show(`  ✓ ${say(language, wasRunning ? 'nodeWasUp' : 'nodeUp')} (${took} s)`)
}

async function untilCtrlC(settings: Settings, { language, out, show, signal }: LabTerminal): Promise<void> {
  out(`\n${say(language, 'stays')}`)
  try {
    await untilDaemonEnds(settings, signal)
    show(say(language, 'nodeEnded'))
  } catch (error) {
    if (!isFault(error, 'aborted')) throw error
  }
}

/** Guests shut down, the node ended. What they keep stays for the next run. */
async function end(settings: Settings, { language, show, out }: LabTerminal): Promise<void> {
  show(`  … ${say(language, 'ending')}`, true)
  using api = labApi(settings, AbortSignal.timeout(endMs))
  try {
    const guests = await api.get('/cluster/resources', { type: 'vm' })
    for (const { id, status } of Array.isArray(guests) ? guests.map(fieldsOf) : []) {
      // `qemu/100`, `lxc/101`
      if (status === 'running') await powerOff(api, `/nodes/${settings.node}/${String(id)}/status`)
    }
  } catch (error) {
    // Without a node there is nobody to ask; `down` finds its guests without it.
    show(`  ! ${messageOf(error)}`)
  }
  await stopNode(settings, endMs)
  out(say(language, 'ended'))
}

async function powerOff(api: LabApi, path: string): Promise<void> {
  const { exitstatus } = await api.task(await api.post(`${path}/shutdown`, { timeout: 20, forceStop: 1 }))
  if (exitstatus === 'OK') return
  requireGood('stopping the guest', await api.task(await api.post(`${path}/stop`)))
}

export async function labDown({ language, out, show }: LabTerminal): Promise<number> {
  const removed: string[] = []
  const down = { settings: labSettings(), host: machine(), alsoShared: true, say: (line: string) => removed.push(line) }
  await requireLab(down.settings)
  show('  …', true)
  await takeDown(down)
  if (removed.length === 0) out(say(language, 'nothingThere'))
  else out([say(language, 'removed'), ...removed.map((line) => `  ${line}`), say(language, 'nothingStays')].join('\n'))
  return 0
}

/** The table of the preflight, and which system packages are missing. Changes nothing. */
export async function doctor(args: readonly string[], { language, width, out }: LabTerminal): Promise<number> {
  const host = machine()
  const wanted = labSettings()
  const port = await runningPort(wanted)
  const isRunning = port !== undefined
  const settings = port === undefined ? wanted : { ...wanted, apiPort: port }
  const list = await readFile(join(import.meta.dirname, '../../packages.txt'), 'utf8')
  const checks: Check[] = [
    ...(await preflight({ host, settings, clock: systemClock, isRunning })),
    await checkPackages(host, list, process.arch),
  ]
  if (args.includes('json')) {
    const rows = checks.map(({ name, state, found, means, fallback }) => ({
      name: name.en,
      state,
      found: found.en,
      means: means.en,
      ...(fallback ? { fallback: fallback.en } : {}),
    }))
    out(JSON.stringify(rows, undefined, 2))
  } else out(preflightTable(checks, language, width))
  return checks.some(({ state }) => state === 'missing') ? 1 : 0
}
