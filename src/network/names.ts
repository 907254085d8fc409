/**
 * What this node calls the things it makes on the machine, and how it knows them again.
 *
 * Several nodes may share a machine. Names carry the instance; as `hka10` could be the bridge of `a` or of
 * `a1`, links carry a note besides, and a link with somebody else's note is never touched.
 */
import { Fault } from '#base/fault.ts'
import type { Link } from '#host/network/ip.ts'

export interface Names {
  /** Note on every link. */
  readonly alias: string
  /** The nft table, family inet. */
  readonly table: string
  readonly tap: (number: number) => string
  /** A container's end of the cable whose other end is called like that tap. */
  readonly cableOf: (tap: string) => string
  /** Link that holds back what comes in from that tap. */
  readonly shaperOf: (tap: string) => string
  readonly netns: (network: string) => string
  /** The bridge inside an isolated network. */
  readonly isolatedBridge: string
  readonly isOurLink: (link: Link) => boolean
  readonly isOurNetns: (name: string) => boolean
}

export function namesOf(instance: string): Names {
  const alias = `hakobune/${instance}`
  const pattern = new RegExp(`^hk${instance}(\\d+|[tes]\\d+)$`)
  return {
    alias,
    table: `hk_${instance}`,
    tap: (number) => `hk${instance}t${number}`,
    cableOf: (tap) => tap.replace(/t(\d+)$/, 'e$1'),
    shaperOf: (tap) => tap.replace(/t(\d+)$/, 's$1'),
    netns: (network) => {
      if (!/^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/.test(network)) {
        throw new Fault('invalid', `'${network}' is no name for a network: 1 to 32 of a-z, 0-9 and -`)
      }
      return `hk-${instance}-${network}`
    },
    isolatedBridge: `hk${instance}i0`,
    // Without a note it was made by a process that died a moment later; then the name has to do.
    isOurLink: (link) => link.alias === alias || (link.alias === undefined && pattern.test(link.name)),
    isOurNetns: (name) => name.startsWith(`hk-${instance}-`),
  }
}
