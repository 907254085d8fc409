/** What a container is told about itself. */
import type { Addressing } from '../../cloud-init/network.ts'

export interface ToldNic {
  /** `eth0` */
  readonly name: string
  readonly ip4?: Addressing | undefined
  readonly ip6?: Addressing | undefined
}

export interface ToldDns {
  readonly servers: readonly string[]
  readonly search: readonly string[]
}

export interface Told {
  /** May be a whole name with domains; the first label is what the container calls itself. */
  readonly hostname: string
  readonly nics: readonly ToldNic[]
  readonly dns: ToldDns
  /** Terminals (`/dev/tty1` …) on which one can log in. */
  readonly ttys: number
  /** `Europe/Vienna`. Without one it keeps its own. */
  readonly timezone?: string | undefined
}

/** A name without domains, and the whole. Without a domain of its own it gets the first it searches. */
export function namesOf({ hostname, dns }: Pick<Told, 'hostname' | 'dns'>): { short: string; full: string } {
  const [short = hostname] = hostname.split('.')
  if (short !== hostname) return { short, full: hostname }
  const [domain] = dns.search
  return { short, full: domain === undefined ? short : `${short}.${domain}` }
}
