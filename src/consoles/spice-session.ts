/**
 * One viewer of a guest by SPICE: a connection for each of its channels (screen, keys, pointer, sound, devices), which
 * come one after the other.
 *
 * The first is the main channel; the guest tells there which others exist, and ties them to it. When it ends QEMU ends
 * the others itself; they are given a moment for that, because some versions of its SPICE do not survive a screen that
 * goes in the same instant. What they carry stays between viewer and guest: TLS ends there, and there the password is
 * asked for.
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
  #hasEnded = false

  constructor(needs: SpiceSessionNeeds) {
    this.#needs = needs
  }

  /** The main channel, until it ends. @throws Fault when the guest cannot be reached */
  async serve(main: Duplex): Promise<void> {
    try {
      await this.serveMore(main)
    } finally {
      this.#hasEnded = true
      void this.#needs.clock.sleep(consoleLimits.spiceGraceMs).then(() => {
        for (const channel of this.#channels) channel.destroy()
      })
    }
  }

  /** @throws Fault `exhausted`, or when the guest cannot be reached */
  async serveMore(channel: Duplex): Promise<void> {
    if (this.#channels.size >= consoleLimits.spiceChannels) {
      throw new Fault('exhausted', `the viewer has ${this.#channels.size} channels open: that is all`)
    }
    this.#channels.add(channel)
    try {
      const line = await this.#needs.connect()
      line.on('error', () => line.destroy())
      if (this.#hasEnded) channel.destroy()
      await joined(channel, line)
    } finally {
      this.#channels.delete(channel)
    }
  }
}
