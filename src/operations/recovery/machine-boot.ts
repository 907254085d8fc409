/** Waits for a restored virtual machine to boot and to answer on its agent. */
import { waitFor } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { agentOf } from '#guests/qemu/agent.ts'
import type { GuestAddress } from '#network/subnet.ts'
import { judgeConsole } from '#recovery/console.ts'
import type { DrillDeps, Scratch } from './drill-facts.ts'
import { logOf } from './exhibits.ts'

/**
 * Up is what the console says, or an agent that answers: a guest without a serial console still boots.
 * @throws Fault `unproven` as soon as the console or the firmware says it never will, or past the deadline
 */
export async function waitForBoot(facts: Scratch): Promise<string> {
  const { deps, scratch, config, timeoutMs, signal } = facts
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
      `no sign of an operating system within ${timeoutMs / 1000} s, neither on the console${agentOf(config).isEnabled ? ' nor by its agent' : ''}`,
    )
  })
  if (!(await deps.guests.isRunning(scratch))) throw new Fault('unproven', 'the guest powered off while booting')
  return seen
}

async function bootState({ deps, scratch, config }: Scratch): Promise<string | undefined> {
  const verdict = judgeConsole(await logOf(deps, scratch, 'serial.log'), await logOf(deps, scratch, 'firmware.log'))
  switch (verdict.state) {
    case 'up':
      return `console: '${verdict.line}'`
    case 'dead':
      throw new Fault('unproven', verdict.why)
    case 'silent':
      return agentOf(config).isEnabled && (await pings(deps, scratch)) ? 'guest agent answered' : undefined
    default:
      return verdict satisfies never
  }
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
export async function waitForAgent({ deps, scratch, config, timeoutMs, signal }: Scratch): Promise<string> {
  if (!agentOf(config).isEnabled)
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
  readonly 'ip-addresses'?: readonly {
    readonly 'ip-address': string
    readonly 'ip-address-type': string
    readonly prefix: number
  }[]
}

/** As its agent tells them; none while it does not. */
export async function addressesOf({ deps, scratch }: Scratch): Promise<GuestAddress[]> {
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
      .filter((one) => one['ip-address-type'] === 'ipv4')
      .map((one) => ({ address: one['ip-address'], prefix: one.prefix }))
  } catch (error) {
    if (isFault(error, 'aborted')) throw error
    return []
  }
}
