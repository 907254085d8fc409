/**
 * One viewer of a guest by SPICE: a connection for each of its channels (screen, keys, pointer, sound, devices), which
 * come one after the other.
 *
 * The first is the main channel; the guest tells there which others exist, and ties them to it. When it ends QEMU ends
 * the others itself, in another thread than the one that sees them close; some versions of its SPICE do not survive
 * both in the same instant. So a channel the viewer has left is kept for a moment on QEMU's side: when all of them went,
 * QEMU has let go of it by then. What channels carry stays between viewer and guest: TLS ends there, and there the
 * password is asked for.
 */
import type { Duplex } from 'node:stream'
import type { Clock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { joined } from './join.ts'
import { consoleLimits } from './limits.ts'

export interface SpiceSessionNeeds {
  /** To the guest's own SPICE socket, for each channel anew. */
  readonly connect: () => Promise<Duplex>
  readonly clock: Clock
}

export class SpiceSession {
  readonly #needs: SpiceSessionNeeds
  readonly #channels = new Set<Duplex>()
  /** Connections to the guest, also those that are about to go. */
  #lines = 0
  #hasEnded = false

  constructor(needs: SpiceSessionNeeds) {
    this.#needs = needs
  }

  /** The main channel, until it ends. @throws Fault when the guest cannot be reached */
  async serve(main: Duplex): Promise<void> {
    try {
      await this.#carry(main, (line) => {
        this.#lines -= 1
        line.destroy()
      })
    } finally {
      this.#hasEnded = true
      void this.#moment().then(() => {
        for (const channel of this.#channels) channel.destroy()
      })
    }
  }

  /** @throws Fault `exhausted`, or when the guest cannot be reached */
  async serveMore(channel: Duplex): Promise<void> {
    await this.#carry(channel, (line) => {
      void this.#moment().then(() => {
        this.#lines -= 1
        line.destroy()
      })
    })
  }

  #moment(): Promise<void> {
    return this.#needs.clock.sleep(consoleLimits.spiceGraceMs)
  }

  async #carry(channel: Duplex, letGo: (line: Duplex) => void): Promise<void> {
    if (this.#lines >= consoleLimits.spiceChannels) {
      throw new Fault('exhausted', `the viewer has ${this.#lines} channels open: that is all`)
    }
    this.#lines += 1
    const line = await this.#needs.connect().catch((error: unknown) => {
      this.#lines -= 1
      throw error
    })
    line.on('error', () => line.destroy())
    this.#channels.add(channel)
    try {
      if (this.#hasEnded) channel.destroy()
      await joined(channel, line, { letGo })
    } finally {
      this.#channels.delete(channel)
    }
  }
}
