/**
 * Holds what passes a link to a rate, in both directions: by `tc`, with token buckets.
 *
 * What leaves the node on the link waits in a bucket there. What comes in cannot wait: it is turned round to a link of
 * its own, made for that (`ifb`), passes a bucket there, and comes in behind it as if nothing had been. Policing, which
 * drops instead, was rejected: a TCP connection under it reaches a part of its rate.
 */
import { KiB } from '#base/bytes.ts'
import type { Host } from '../host.ts'
import { addLink, changeLink, deleteLink } from './ip.ts'
import { iproute } from './iproute.ts'
import type { NetworkPlace } from './netns.ts'

export interface Shaped {
  readonly link: string
  /** Name of the link that is made for what comes in. */
  readonly shaper: string
  /** Note on it. */
  readonly alias: string
}

/** Longest a packet waits. */
const latency = '50ms'
/** One packet of a network card may be 64 KiB before it is cut. */
const leastBurst = 96 * KiB

/** Idempotent; another rate takes the place of the one before. */
export async function limitTraffic(
  host: Host,
  { link, shaper, alias }: Shaped,
  bytesPerSecond: number,
  place: NetworkPlace = {},
): Promise<void> {
  const rate = Math.max(1, Math.round(bytesPerSecond))
  const burst = Math.max(leastBurst, Math.round(rate / 50))
  const bucket = ['tbf', 'rate', `${rate}bps`, 'burst', String(burst), 'latency', latency]
  const tc = (...words: string[]) => host.run(iproute('tc', place, ...words))
  await tc('qdisc', 'replace', 'dev', link, 'root', ...bucket)
  if (!(await isThere(host, shaper, place))) await addLink(host, shaper, ['type', 'ifb'], place)
  await changeLink(host, shaper, { alias, isUp: true }, place)
  await tc('qdisc', 'replace', 'dev', shaper, 'root', ...bucket)
  await tc('qdisc', 'replace', 'dev', link, 'ingress')
  const turned = ['u32', 'match', 'u32', '0', '0', 'action', 'mirred', 'egress', 'redirect', 'dev', shaper]
  await tc(
    'filter',
    'replace',
    'dev',
    link,
    'parent',
    'ffff:',
    'protocol',
    'all',
    'prio',
    '1',
    'handle',
    '800::800',
    ...turned,
  )
}

/** Lets everything pass again. Idempotent, also when the link itself is gone. */
export async function unlimitTraffic(
  host: Host,
  { link, shaper }: Pick<Shaped, 'link' | 'shaper'>,
  place: NetworkPlace = {},
): Promise<void> {
  for (const kind of ['root', 'ingress']) {
    await host.run(iproute('tc', place, 'qdisc', 'delete', 'dev', link, kind), { okCodes: [0, 1, 2] })
  }
  await deleteLink(host, shaper, place)
}

async function isThere(host: Host, name: string, place: NetworkPlace): Promise<boolean> {
  const { code } = await host.run(iproute('ip', place, 'link', 'show', 'dev', name), { okCodes: [0, 1] })
  return code === 0
}
