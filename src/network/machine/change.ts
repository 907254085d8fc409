/** Makes the network as wanted: looks, takes the steps, and looks again until none is left. */
import { Fault, isFault } from '#base/fault.ts'
import type { Host } from '#host/host.ts'
import type { NetworkPlace } from '#host/netns.ts'
import { changeNetwork } from '#host/network-state.ts'
import { writeSysctl } from '#host/sysctl.ts'
import { observe } from './observe.ts'
import { type NetworkState, withLinksOf } from './state.ts'
import { type Step, stepsBetween } from './steps.ts'

export interface Change {
  readonly host: Host
  readonly place: NetworkPlace
  /** Links outside of this list are left alone, whatever they are by then. */
  readonly names: readonly string[]
  readonly log?: (line: string) => void
  readonly signal?: AbortSignal
}

const rounds = 5

/** @throws Fault `failed` with the kernel's words, or naming what does not become as wanted */
export async function makeSo(
  wanted: NetworkState,
  { host, place, names, log = () => {}, signal }: Change,
): Promise<void> {
  let left: Step[] = []
  for (let round = 0; round < rounds; round += 1) {
    const now = await observe(host, place)
    left = stepsBetween(now, withLinksOf(now, wanted, names))
    if (left.length === 0) return
    for (const step of left) {
      signal?.throwIfAborted()
      log(textOf(step))
      await take(step, host, place)
    }
  }
  throw new Fault('failed', `the network does not stay as it was set: '${left.map(textOf).join("', '")}' has no effect`)
}

async function take({ program, words }: Step, host: Host, place: NetworkPlace): Promise<void> {
  if (program !== 'sysctl') {
    try {
      await changeNetwork(host, program, words, place)
    } catch (error) {
      // What is to go may be gone by itself, with its link or its first address; if not, the next look tells.
      if (!words.includes('delete') || !isFault(error, 'failed')) throw error
    }
    return
  }
  try {
    await writeSysctl(host, words[0] ?? '', words[1] ?? '', place)
  } catch (error) {
    // A kernel without IPv6 has nothing to be told.
    if (!isFault(error, 'unavailable') && !isFault(error, 'failed')) throw error
  }
}

export function textOf({ program, words }: Step): string {
  return program === 'sysctl' ? `${words.join(' = ')}` : `${program} ${words.join(' ')}`
}
