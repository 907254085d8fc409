/** Makes the network as wanted: looks, takes the steps, and looks again until none is left. */
import { Fault, isFault } from '#base/fault.ts'
import type { Host } from '#host/host.ts'
import type { NetworkPlace } from '#host/network/netns.ts'
import { changeNetwork } from '#host/network/network-state.ts'
import { writeSysctl } from '#host/network/sysctl.ts'
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
    for (const batch of batches(left)) {
      signal?.throwIfAborted()
      for (const step of batch) log(textOf(step))
      await take(batch, host, place)
    }
  }
  throw new Fault('failed', `the network does not stay as it was set: '${left.map(textOf).join("', '")}' has no effect`)
}

/** Steps one process takes. What is to go may be gone by itself, so each of these is taken alone. */
function batches(steps: readonly Step[]): Step[][] {
  const all: Step[][] = []
  for (const step of steps) {
    const last = all.at(-1)
    const fits = last?.[0]?.program === step.program && step.program !== 'sysctl' && !isRemoval(step)
    if (last && fits && !last.some(isRemoval)) last.push(step)
    else all.push([step])
  }
  return all
}

const isRemoval = ({ words }: Step) => words.includes('delete')

async function take(batch: readonly Step[], host: Host, place: NetworkPlace): Promise<void> {
  const [first] = batch
  if (!first) return
  const { program, words } = first
  try {
    if (program === 'sysctl') await writeSysctl(host, words[0] ?? '', words[1] ?? '', place)
    else
      await changeNetwork(
        host,
        program,
        batch.map((step) => step.words),
        place,
      )
  } catch (error) {
    // A link or address that vanished by itself, with what it was on: if it did not, the next look tells. And a kernel
    // without IPv6 has nothing to be told.
    const isHarmless = isFault(error, 'failed') || (program === 'sysctl' && isFault(error, 'unavailable'))
    if (!isHarmless || !(program === 'sysctl' || isRemoval(first))) throw error
  }
}

export function textOf({ program, words }: Step): string {
  return program === 'sysctl' ? `${words.join(' = ')}` : `${program} ${words.join(' ')}`
}
