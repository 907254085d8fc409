/** Looking at running guests: their screens, by VNC and by SPICE, and their serial ports. */
import type { Socket } from 'node:net'
import type { Vmid } from '#base/ids.ts'
import type { GuestDocuments } from './documents.ts'
import {
  type ConsolePlace,
  connectScreen,
  connectSerial,
  connectSpice,
  requireScreen,
  requireSpice,
  serialPortOf,
} from './qemu/console.ts'
import type { QemuDriver } from './qemu/driver.ts'

export class GuestConsoles {
  readonly #documents: GuestDocuments
  readonly #driver: QemuDriver

  constructor({ documents, driver }: { readonly documents: GuestDocuments; readonly driver: QemuDriver }) {
    this.#documents = documents
    this.#driver = driver
  }

  /** Connects to the screen of the running guest, which speaks VNC. @throws Fault `conflict` when it has none */
  async connectScreen(vmid: Vmid): Promise<Socket> {
    return connectScreen(await this.#place(vmid))
  }

  /** @throws Fault `conflict` when the running guest has no screen, or does not run */
  async requireScreen(vmid: Vmid): Promise<void> {
    requireScreen(vmid, (await this.#place(vmid)).record.options)
  }

  /** Connects to the running guest by SPICE: one channel. @throws Fault `conflict` when it has none */
  async connectSpice(vmid: Vmid): Promise<Socket> {
    return connectSpice(await this.#place(vmid))
  }

  /** @returns the certificate viewers meet, which no other run of a guest has @throws Fault `conflict` when there is no SPICE */
  async requireSpice(vmid: Vmid): Promise<string> {
    return requireSpice(vmid, (await this.#place(vmid)).record)
  }

  /** From now on, for so long, who connects by SPICE and knows this password is let in. */
  async admitToSpice(vmid: Vmid, password: string, forSeconds: number): Promise<void> {
    await using monitor = await this.#driver.monitor(vmid)
    await monitor.execute('set_password', { protocol: 'spice', password })
    await monitor.execute('expire_password', { protocol: 'spice', time: `+${forSeconds}` })
  }

  /** Which of its serial ports a terminal means. @throws Fault `conflict` when it has none, or does not run */
  async serialPort(vmid: Vmid, wanted?: string): Promise<number> {
    return serialPortOf(vmid, (await this.#place(vmid)).record.options, wanted)
  }

  /** QEMU serves one client on each port. */
  async connectSerial(vmid: Vmid, index: number): Promise<Socket> {
    return connectSerial(await this.#place(vmid), index)
  }

  async #place(vmid: Vmid): Promise<ConsolePlace> {
    await this.#documents.get(vmid, 'qemu')
    const record = await this.#driver.requireRunning(vmid)
    return { vmid, runDir: this.#driver.runDirOf(vmid), listener: this.#driver.listenerOf(vmid, record), record }
  }
}
