/**
 * What a guest of the lab is, whatever its kind: it is made, it answers, it shows a page and a file that is known, and
 * both are to come back with its backup.
 */
import type { Clock } from '#base/clock.ts'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import type { Random } from '#base/random.ts'
import type { Host } from '#host/host.ts'
import { httpGet } from '#host/network/http-probe.ts'
import type { Settings } from '#settings.ts'
import type { LabApi } from './api.ts'
import type { LabTerminal } from './terminal.ts'
import { say, type SentenceKey } from './text.ts'

export interface Lab {
  readonly settings: Settings
  readonly api: LabApi
  readonly host: Host
  readonly clock: Clock
  readonly random: Random
  readonly terminal: LabTerminal
}

export interface LabGuest {
  readonly vmid: number
  /** Its branch in the node's API. */
  readonly kind: 'qemu' | 'lxc'
  /** `VM 100` */
  readonly name: string
  /** Text of its page. */
  readonly page: string
  /** The file its web server shows as `/known`. */
  readonly knownFile: string
  /** What is said when it answers, and when that file is written. */
  readonly says: { readonly start: SentenceKey; readonly known: SentenceKey }
  /** What it is made of. Takes a while the first time. */
  readonly prepare: (lab: Lab) => Promise<string>
  /** @param source what `prepare` gave @returns the task */
  readonly create: (lab: Lab, source: string) => Promise<unknown>
  /** Whether somebody inside answers. */
  readonly answers: (lab: Lab) => Promise<boolean>
  /** Its own word for its address, given by the DHCP of the lab's network. */
  readonly address: (lab: Lab) => Promise<string | undefined>
  /** Writes the known file, from inside. */
  readonly write: (lab: Lab, content: string) => Promise<void>
}

export const guestLimitMs = 120_000

export function pathOf({ settings }: Lab, { kind, vmid }: Pick<LabGuest, 'kind' | 'vmid'>, rest: string): string {
  return `/nodes/${settings.node}/${kind}/${vmid}/${rest}`
}

/** Shows what is being done, and afterwards that it was and how long it took. */
export async function step<T>(
  { terminal, clock }: Lab,
  key: SentenceKey,
  work: () => Promise<T>,
  ...values: readonly string[]
): Promise<T> {
  const text = say(terminal.language, key, ...values)
  const started = clock.monotonic()
  terminal.show(`  … ${text}`, true)
  const result = await work()
  terminal.show(`  ✓ ${text} (${((clock.monotonic() - started) / 1000).toFixed(1)} s)`)
  return result
}

/** While it boots nobody answers; anything but that is a failure to be seen. */
export async function orNotYet<T>(ask: () => Promise<T>): Promise<T | undefined> {
  try {
    return await ask()
  } catch (error) {
    if (isFault(error, 'unavailable') || isFault(error, 'timeout') || isFault(error, 'failed')) return undefined
    throw error
  }
}

/** Asked by this machine, which is part of the lab's network. */
export async function untilPage(
  { host, terminal }: Lab,
  address: string,
  path: string,
  expected: RegExp,
): Promise<void> {
  const url = `http://${address}${path}`
  await waitFor(
    async () => {
      const answer = await orNotYet(() => httpGet({ host, url, timeoutMs: 3_000, signal: terminal.signal }))
      return answer?.status === 200 && expected.test(answer.body)
    },
    { what: `the web page ${url} with ${expected}`, timeoutMs: guestLimitMs, everyMs: 200, signal: terminal.signal },
  )
}
