/** Waits for a restored guest to boot, to answer on its agent, and to answer on its network. */
import { join } from 'node:path'
import { waitFor } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { readForeignFile } from '#host/files.ts'
import { inNetns } from '#host/netns.ts'
import { judgeConsole } from '#recovery/console.ts'
import type { DrillDeps, Scratch } from './drill-facts.ts'

/** The end of a log says how a boot went; a guest that prints for ever must fill neither memory nor disk. */
const logBytes = 1024 * 1024

/**
 * Up is what the console says, or an agent that answers: a guest without a serial console still boots.
 * @throws Fault `unproven` as soon as the console or the firmware says it never will, or past the deadline
 */
export async function waitForBoot(facts: Scratch & { readonly hasAgent: boolean }): Promise<string> {
  const { deps, scratch, timeoutMs, signal, hasAgent } = facts
  const seen = await waitFor(() => bootState(facts), {
    what: 'boot',
    timeoutMs,
    everyMs: 50,
    signal,
    clock: deps.clock,
  }).catch((error: unknown) => {
    if (!isFault(error, 'timeout')) throw error
    throw new Fault(
      'unproven',
      `no sign of an operating system within ${timeoutMs / 1000} s, neither on the console${hasAgent ? ' nor by its agent' : ''}`,
    )
  })
  if (!(await deps.guests.isRunning(scratch))) throw new Fault('unproven', 'the guest powered off while booting')
  return seen
}

async function bootState({
  deps,
  scratch,
  hasAgent,
}: Scratch & { readonly hasAgent: boolean }): Promise<string | undefined> {
  const verdict = judgeConsole(await logOf(deps, scratch, 'serial.log'), await logOf(deps, scratch, 'firmware.log'))
  switch (verdict.state) {
    case 'up':
      return `console: '${verdict.line}'`
    case 'dead':
      throw new Fault('unproven', verdict.why)
    case 'silent':
      return hasAgent && (await pings(deps, scratch)) ? 'guest agent answered' : undefined
    default:
      return verdict satisfies never
  }
}

export async function logOf(deps: Pick<DrillDeps, 'guests'>, scratch: Vmid, name: string): Promise<string> {
  const content = await readForeignFile(join(deps.guests.runDirOf(scratch), name), logBytes)
  return content?.toString('latin1') ?? ''
}

async function pings(deps: DrillDeps, scratch: Vmid): Promise<boolean> {
  try {
    await deps.guests.agentExecute(scratch, 'guest-ping', {}, { timeoutMs: 500 })
    return true
  } catch (error) {
    if (isFault(error, 'aborted')) throw error
    return false
  }
}

/** @throws Fault `unproven` */
export async function waitForAgent({
  deps,
  scratch,
  timeoutMs,
  signal,
  hasAgent,
}: Scratch & { readonly hasAgent: boolean }): Promise<string> {
  if (!hasAgent)
    throw new Fault('unproven', 'No QEMU guest agent configured', {
      remedy: 'Set agent=1 on the guest and install qemu-guest-agent in it.',
    })
  await waitFor(() => pings(deps, scratch), {
    what: 'guest agent',
    timeoutMs,
    everyMs: 50,
    signal,
    clock: deps.clock,
  }).catch((error: unknown) => {
    throw isFault(error, 'timeout')
      ? new Fault('unproven', `the guest agent did not answer within ${timeoutMs / 1000} s`)
      : error
  })
  const { version } = await deps.guests.agentExecute<{ version: string }>(
    scratch,
    'guest-info',
    {},
    { timeoutMs: 5_000 },
  )
  return `agent ${version} answered`
}

interface Interface {
  readonly name: string
  readonly 'ip-addresses'?: readonly { readonly 'ip-address': string; readonly 'ip-address-type': string }[]
}

/** The first IPv4 address that answers an echo request sent from inside the isolated network. */
export async function waitForAddress({
  deps,
  scratch,
  netns,
  timeoutMs,
  signal,
}: Scratch): Promise<{ address: string; found: string }> {
  const address = await waitFor(
    async () => {
      for (const candidate of await addressesOf(deps, scratch))
        if (await answersEcho(deps, netns, candidate)) return candidate
      return undefined
    },
    { what: 'network', timeoutMs, everyMs: 100, signal, clock: deps.clock },
  ).catch((error: unknown) => {
    throw isFault(error, 'timeout')
      ? new Fault(
          'unproven',
          `no address of the guest answered inside the isolated network within ${timeoutMs / 1000} s`,
        )
      : error
  })
  return { address, found: `${address} answers inside ${netns}` }
}

async function addressesOf(deps: DrillDeps, scratch: Vmid): Promise<string[]> {
  try {
    const interfaces = await deps.guests.agentExecute<Interface[]>(
      scratch,
      'guest-network-get-interfaces',
      {},
      { timeoutMs: 2_000 },
    )
    return interfaces
      .filter(({ name }) => name !== 'lo')
      .flatMap((one) => one['ip-addresses'] ?? [])
      .filter((one) => one['ip-address-type'] === 'ipv4' && !one['ip-address'].startsWith('169.254.'))
      .map((one) => one['ip-address'])
  } catch (error) {
    if (isFault(error, 'aborted')) throw error
    return []
  }
}

async function answersEcho(deps: DrillDeps, netns: string, address: string): Promise<boolean> {
  const { code } = await deps.host.run(inNetns(netns, ['busybox', 'ping', '-c', '1', '-W', '1', address]), {
    okCodes: [0, 1, 2],
    timeoutMs: 5_000,
  })
  return code === 0
}
