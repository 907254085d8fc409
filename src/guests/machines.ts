/**
 * What only virtual machines have: a monitor, screens, serial ports, an agent, a cloud-init drive.
 */
import { join } from 'node:path'
import { Fault, messageOf } from '#base/fault.ts'
import type { Vmid, VolumeId } from '#base/ids.ts'
import { AgentClient } from '#host/qemu/guest-agent.ts'
import { loaderFor, once } from '#base/on-demand.ts'
import type { QmpClient } from '#host/qemu/qmp.ts'
import type { Listener } from '#host/programs/unix-peer.ts'
import type * as cloudInitDrive from './cloud-init/drive.ts'
import type * as cloudInitOptions from './cloud-init/options.ts'
import type { Options } from './config.ts'
import type * as consoles from './consoles.ts'
import { agentOf } from './qemu/agent.ts'
import type { qmpSockets } from './qemu/command-line.ts'
import { cloudInitVolumesIn, driveOf, printDrive } from './qemu/drive.ts'
import { nicsOf } from './qemu/nic.ts'
import type { Renewals } from './qemu/renewal.ts'
import type { RegistryNeeds } from './registry.ts'
import { GuestRegistry } from './registry.ts'

const load = loaderFor(import.meta.url)
/** Few machines have such a drive. */
const cloudInit = () => ({
  ...load<typeof cloudInitDrive>('./cloud-init/drive.ts'),
  ...load<typeof cloudInitOptions>('./cloud-init/options.ts'),
})

export class GuestMachines extends GuestRegistry {
  readonly #consoles: () => consoles.GuestConsoles
  readonly #needs: RegistryNeeds

  constructor(needs: RegistryNeeds) {
    super(needs)
    this.#needs = needs
    this.#consoles = once(() => {
      const { GuestConsoles } = load<typeof consoles>('./consoles.ts')
      return new GuestConsoles({ documents: this.documents, driver: this.qemu })
    })
  }

  get consoles(): consoles.GuestConsoles {
    return this.#consoles()
  }

  /** Moves running guests into fresh processes, without a stop. */
  get renewals(): Renewals {
    return this.qemu.renewals
  }

  /** The uid (and gid) its QEMU runs as. */
  uidOf(vmid: Vmid): number {
    return this.qemu.uidOf(vmid)
  }

  /** Starts the server of what the running guest's disks still lack again, when that has ended. */
  async serveBelow(vmid: Vmid): Promise<void> {
    const { filling } = await this.config(vmid)
    if (!filling) return
    await this.qemu.below.serve(vmid, filling)
    // It ended since it was looked at: nobody else knows of what was just started for it.
    const hasEnded = async () => !(await this.records.alive(vmid))
    if (await hasEnded()) await this.qemu.below.end(vmid, hasEnded)
  }

  /** What that server could not read so far, a sentence each. */
  async unreadableBelow(vmid: Vmid): Promise<readonly string[]> {
    return this.qemu.below.unreadable(vmid)
  }

  /** Writes down that a drive is whole; after the last one nothing is served any more. */
  async filled(vmid: Vmid, drive: string): Promise<void> {
    const { filling } = await this.config(vmid)
    if (!filling) return
    const drives = filling.drives.filter((name) => name !== drive)
    await this.setFilling(vmid, { ...filling, drives })
    if (drives.length === 0) await this.qemu.below.end(vmid)
  }

  /** Who must be found at the sockets of its run directory. @throws Fault `conflict` 'VM 100 not running' */
  async listenerOf(vmid: Vmid): Promise<Listener> {
    return this.qemu.listenerOf(vmid, await this.qemu.requireRunning(vmid))
  }

  /** Its cards whose bridge this node does not have: with them it does not start. */
  async withoutBridge(options: Options): Promise<{ readonly name: string; readonly bridge: string }[]> {
    const wanted = nicsOf(options).flatMap(({ name, bridge }) => (bridge === undefined ? [] : [{ name, bridge }]))
    if (wanted.length === 0) return []
    const there = await this.#needs.network.bridgeNames()
    return wanted.filter(({ bridge }) => !there.includes(bridge))
  }

  protected async writeCloudInit(vmid: Vmid, options: Options): Promise<void> {
    const [drive] = cloudInitVolumesIn(options)
    if (drive) await cloudInit().writeCloudInit(this.#needs, vmid, { volid: drive.volid, options })
  }

  /** What the guest's cloud-init drive would hold if it were written now. @throws Fault `missing` naming a snippet */
  async cloudInitPart(vmid: Vmid, part: 'user' | 'network' | 'meta'): Promise<string> {
    return cloudInit().cloudInitPart(this.#needs, vmid, cloudInit().toldOptions(await this.config(vmid)), part)
  }

  /**
   * Writes the guest's cloud-init drive anew; a running guest gets it as a new disc. For operations that hold the
   * guest's lock.
   * @param told what it is told instead of what is configured: what a running guest had, to take an update back
   * @throws Fault `conflict` when there is none, `missing` naming a snippet, `exhausted`
   */
  async updateCloudInit(vmid: Vmid, told?: Options): Promise<void> {
    const { volid } = await this.requireCloudInit(vmid)
    const config = await this.config(vmid)
    const options = told ?? cloudInit().toldOptions(config)
    await cloudInit().writeCloudInit(this.#needs, vmid, { volid, options })
    const [inserted] = cloudInitVolumesIn(config.running ?? {})
    if (!config.running || !inserted) return
    const text = printDrive(driveOf(inserted.name, config.running[inserted.name] ?? ''), { file: volid })
    await this.qemu.changeMedium(vmid, driveOf(inserted.name, text), volid)
    await this.changeRunning(vmid, () => ({ ...options, [inserted.name]: text }))
  }

  /** @throws Fault `conflict` saying how to get one */
  async requireCloudInit(vmid: Vmid): Promise<{ name: string; volid: VolumeId }> {
    const [drive] = cloudInitVolumesIn((await this.config(vmid)).options)
    if (drive) return drive
    throw new Fault('conflict', `VM ${vmid} has no cloud-init drive`, {
      remedy: `Give it one: \`hako vm set ${vmid} --ide2 <storage>:cloudinit\`.`,
    })
  }

  /** True when the agent took the wish. */
  protected async askToShutDown(vmid: Vmid, options: Options): Promise<boolean> {
    if (agentOf(options).isEnabled) {
      try {
        await using agent = await this.agent(vmid)
        await agent.tell('guest-shutdown')
        return true
      } catch (fault) {
        this.#needs.log.info(`agent of VM ${vmid} cannot shut it down`, { reason: messageOf(fault) })
      }
    }
    await using monitor = await this.qmp(vmid)
    await monitor.execute('system_powerdown')
    return false
  }

  /** Presses the reset button. */
  async reset(vmid: Vmid): Promise<void> {
    await this.command(vmid, 'system_reset')
  }

  protected async command(vmid: Vmid, command: string): Promise<void> {
    await using monitor = await this.qmp(vmid)
    await monitor.execute(command)
  }

  /**
   * A control connection. QEMU serves one client on each monitor: keep `short` for questions, and use
   * `long` for jobs that stay connected.
   * @throws Fault `conflict` 'VM 100 not running'
   */
  async qmp(vmid: Vmid, which: keyof typeof qmpSockets = 'short', signal?: AbortSignal): Promise<QmpClient> {
    return this.qemu.monitor(vmid, which, signal)
  }

  /** Helpers of the node send what they hold for the running guest along with its state, or no longer. */
  setStateBus(vmid: Vmid, isWanted: boolean): Promise<void> {
    return this.qemu.setStateBus(vmid, isWanted)
  }

  /** @throws Fault `unavailable` when the guest has no agent, does not run, or its agent does not answer */
  async agent(vmid: Vmid): Promise<AgentClient> {
    const record = await this.qemu.running(vmid)
    if (!record) throw new Fault('unavailable', `VM ${vmid} is not running`)
    if (!agentOf(record.options).isEnabled) {
      throw new Fault('unavailable', 'No QEMU guest agent configured', {
        remedy: `Install qemu-guest-agent in the guest, then: hako vm set ${vmid} --agent 1, and start it anew.`,
      })
    }
    const listener = this.qemu.listenerOf(vmid, record)
    return AgentClient.connect(join(this.qemu.runDirOf(vmid), 'agent.sock'), { listener, random: this.#needs.random })
  }

  /** One agent command on a connection of its own. */
  async agentExecute<T = unknown>(
    vmid: Vmid,
    command: string,
    args: object = {},
    how: { readonly timeoutMs?: number; readonly signal?: AbortSignal } = {},
  ): Promise<T> {
    await using agent = await this.agent(vmid)
    return await agent.execute<T>(command, args, how)
  }
}
