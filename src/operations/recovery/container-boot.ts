/** Waits for a restored container: for its system to say that it is up, and for a command inside to answer. */
import { readFile } from 'node:fs/promises'
import { waitFor } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { hostnameOf } from '#guests/config.ts'
import { nicsOf } from '#guests/lxc/nic.ts'
import { codeOf } from '#host/files.ts'
import { addressesIn } from '#host/network/ip.ts'
import { listeningPorts } from '#host/network/listening.ts'
import { openDirectory, openWithin } from '#host/files/open-within.ts'
import type { GuestAddress } from '#network/subnet.ts'
import { whyContainerIsDead } from '#recovery/console.ts'
import { initQuestion, judgeInit, plain } from '#recovery/init.ts'
import type { Scratch } from './drill-facts.ts'
import { logOf } from './exhibits.ts'

/** A question is a matter of a moment; what takes longer waits for something. */
const askMs = 10_000
const answerBytes = 64 * 1024
const shellPath = '/bin/sh'
const mostPorts = 10

/**
 * Up is what its init says. A degraded system is up, and its failed units are told.
 * @throws Fault `unproven` as soon as it never will be, or past the deadline
 */
export async function waitForInit(facts: Scratch): Promise<string> {
  const { deps, timeoutMs, signal } = facts
  let seen = { pid: 0, at: 0 }
  let last = 'nothing answered'
  const ask = async () => {
    await requireAlive(facts)
    const init = await firstProgram(facts)
    if (init === undefined) return undefined
    // One that starts again and again is another each time.
    if (init.pid !== seen.pid) seen = { pid: init.pid, at: deps.clock.monotonic() }
    const verdict = judgeInit(await say(facts, initQuestion), init.name, deps.clock.monotonic() - seen.at)
    if (verdict.state === 'dead') throw new Fault('unproven', verdict.why)
    if (verdict.state === 'up') return verdict.found
    last = verdict.last
    return undefined
  }
  return waitFor(ask, { what: 'boot', timeoutMs, everyMs: 100, signal, clock: deps.clock }).catch((error: unknown) => {
    if (!isFault(error, 'timeout')) throw error
    throw new Fault('unproven', `its system was not up within ${timeoutMs / 1000} s: ${last}`)
  })
}

/** @throws Fault `unproven` when its init ended, or said on the console that it gives up */
async function requireAlive({ deps, scratch }: Scratch): Promise<void> {
  const said = await logOf(deps, scratch, 'console.log')
  const why = whyContainerIsDead(said)
  if (why !== undefined) throw new Fault('unproven', why)
  if (await deps.guests.isRunning(scratch)) return
  const [line] = said.trimEnd().split(/\r?\n/).slice(-1)
  const lastWords = line === undefined || line === '' ? 'it said nothing' : `its last words: '${plain(line)}'`
  throw new Fault('unproven', `the container ended while it booted; ${lastWords}`)
}

/** What a shell inside prints; empty when there is none, or it does not come to an end. */
async function say({ deps, scratch, signal }: Scratch, script: string): Promise<string> {
  const command = [shellPath, '-c', script]
  try {
    const how = { command, timeoutMs: askMs, outputBytes: answerBytes, signal }
    return (await deps.guests.runInside(scratch, how)).stdout
  } catch (error) {
    // It may be on its way up, or down; what prints for ever is no answer either.
    if (isFault(error) && ['conflict', 'timeout', 'failed', 'exhausted', 'too-large'].includes(error.kind)) return ''
    throw error
  }
}

/** Nothing while there is none: it is on its way up, or down. */
async function firstProgram({ deps, scratch }: Scratch): Promise<{ pid: number; name: string } | undefined> {
  try {
    const pid = await deps.guests.initOf(scratch)
    return { pid, name: (await readFile(`/proc/${pid}/comm`, 'utf8')).trim() }
  } catch (error) {
    if (isFault(error, 'conflict') || ['ENOENT', 'ESRCH'].includes(codeOf(error) ?? '')) return undefined
    throw error
  }
}

/**
 * By a command that is run inside. A container that has no shell to run one with was made for one program: that is asked
 * for, by the ports it listens on.
 * @throws Fault `unproven`
 */
export async function waitForAnswer(facts: Scratch): Promise<string> {
  return (await hasShell(facts)) ? waitForCommand(facts) : waitForListener(facts)
}

async function hasShell(facts: Scratch): Promise<boolean> {
  const init = await firstProgram(facts)
  // One on its way up, or down, is asked, and says so.
  if (init === undefined) return true
  try {
    using root = openDirectory(`/proc/${init.pid}/root`)
    using shell = openWithin(root.fd, shellPath)
    return shell !== undefined
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes(codeOf(error) ?? '')) return true
    throw error
  }
}

async function waitForListener(facts: Scratch): Promise<string> {
  const { timeoutMs, signal, deps } = facts
  const ask = async () => {
    await requireAlive(facts)
    const init = await firstProgram(facts)
    const ports = init === undefined ? [] : await listeningPorts(init.pid)
    if (ports.length === 0) return undefined
    const [first, ...more] = ports.slice(0, mostPorts)
    const where = more.length === 0 ? `port ${first}` : `ports ${[first, ...more].join(', ')}`
    return `there is no shell inside; '${plain(init?.name ?? '')}' runs first, and TCP ${where} is listened on`
  }
  return waitFor(ask, { what: 'a port', timeoutMs, everyMs: 100, signal, clock: deps.clock }).catch(
    (error: unknown) => {
      if (!isFault(error, 'timeout')) throw error
      throw new Fault(
        'unproven',
        `it has no shell to run a command with, and nothing inside listened on a TCP port within ${timeoutMs / 1000} s`,
      )
    },
  )
}

async function waitForCommand(facts: Scratch): Promise<string> {
  const { deps, scratch, toldName, timeoutMs, signal } = facts
  let last = 'nothing answered'
  const ask = async () => {
    const command = [shellPath, '-c', 'read -r name < /proc/sys/kernel/hostname && echo "$name"']
    const how = { command, timeoutMs: askMs, outputBytes: answerBytes, signal }
    const ran = await deps.guests.runInside(scratch, how).catch((error: unknown) => {
      if (isFault(error, 'aborted') || !isFault(error)) throw error
      last = error.message
    })
    if (ran === undefined) return undefined
    const name = plain(ran.stdout)
    if (ran.code === 0 && name !== '') return name
    last = plain(ran.stderr.trim().split('\n').at(-1) ?? `exit code ${ran.code}`)
    return undefined
  }
  const name = await waitFor(ask, {
    what: 'a command inside',
    // A shell is there from the first moment, or never.
    timeoutMs: Math.min(timeoutMs, askMs),
    everyMs: 100,
    signal,
    clock: deps.clock,
  }).catch((error: unknown) => {
    if (!isFault(error, 'timeout')) throw error
    throw new Fault('unproven', `no command inside answered: ${last}`)
  })
  return name === hostnameOf({ hostname: toldName }, scratch)
    ? `a command inside answered as '${name}'`
    : `a command inside answered as '${name}', where '${toldName}' was expected`
}

/** Of the cards it was given, as the node sees them in its network namespace; none while it has no init. */
export async function containerAddresses({ deps, scratch, config }: Scratch): Promise<GuestAddress[]> {
  const gateways = new Map(nicsOf(config).map(({ inside, gateway }) => [inside, gateway]))
  try {
    const cards = await addressesIn(deps.host, await deps.guests.initOf(scratch))
    return cards
      .filter(({ name }) => gateways.has(name))
      .flatMap(({ name, addresses }) =>
        addresses
          .filter(({ family }) => family === 'inet')
          .map(({ address, prefix }) => ({ address, prefix, gateway: gateways.get(name) })),
      )
  } catch (error) {
    if (!isFault(error) || error.kind === 'aborted') throw error
    return []
  }
}
