/**
 * Which clusters of a device have been seen. The format has no end mark: that an archive is whole is known by
 * every cluster of every device having come, once.
 */
import { clusterBytes } from './format.ts'
import { damaged, type VmaDevice } from './header.ts'

export class Coverage {
  readonly #device: VmaDevice
  readonly #clusters: number
  /** One bit each; memory is taken by the system as bits are set. */
  readonly #seen: Buffer
  #count = 0

  constructor(device: VmaDevice) {
    this.#device = device
    this.#clusters = Math.ceil(device.sizeBytes / clusterBytes)
    this.#seen = Buffer.alloc(Math.ceil(this.#clusters / 8))
  }

  /** @throws Fault `damaged` when the cluster has come before */
  add(cluster: number): void {
    const [byte, bit] = [cluster >>> 3, 1 << (cluster & 7)]
    const before = this.#seen[byte] ?? 0
    if ((before & bit) !== 0) throw damaged(`cluster ${cluster} of device ${this.#device.name} is in it twice`)
    this.#seen[byte] = before | bit
    this.#count += 1
  }

  /** @throws Fault `damaged` naming the first cluster that is missing */
  requireWhole(): void {
    const missing = this.#clusters - this.#count
    if (missing === 0) return
    let first = 0
    while (((this.#seen[first >>> 3] ?? 0) & (1 << (first & 7))) !== 0) first += 1
    throw damaged(
      `it ends early: ${missing} of ${this.#clusters} clusters of device ${this.#device.name} are missing, the first is ${first}`,
    )
  }
}
