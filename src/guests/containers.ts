/** What only containers have: programs run inside, and terminals. */
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import type { Argv } from '#host/host.ts'
import { mountPoints } from '#host/mount.ts'
import type { Options } from './config.ts'
import { closeVolumes, mountsDirOf, openVolumes, type VolumeNeeds } from './lxc/volumes.ts'
import { GuestMachines } from './machines.ts'
import type { RegistryNeeds } from './registry.ts'

export interface RunInside {
  readonly command: readonly string[]
  /** Given on standard input. */
  readonly input?: string
  readonly timeoutMs: number
  readonly outputBytes: number
  readonly signal?: AbortSignal
}

export interface RanInside {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export class GuestContainers extends GuestMachines {
  readonly #host: RegistryNeeds['host']
  readonly #volumeNeeds: VolumeNeeds

  constructor(needs: RegistryNeeds) {
    super(needs)
    this.#host = needs.host
    this.#volumeNeeds = { ...needs, runDir: needs.settings.runDir }
  }

  /** Shows the volumes of a container that does not run, for as long as `act` takes. */
  async withVolumes<T>(
    vmid: Vmid,
    options: Options,
    act: (places: Readonly<Record<string, string>>) => Promise<T>,
  ): Promise<T> {
    try {
      return await act(await openVolumes(this.#volumeNeeds, vmid, options))
    } finally {
      await this.closeVolumes(vmid)
    }
  }

  /** For whoever undoes the work of a process that died with volumes open. Idempotent. */
  async closeVolumes(vmid: Vmid): Promise<void> {
    await closeVolumes(this.#volumeNeeds, vmid)
  }

  /**
   * Sees to it that containers are told of their memory and processors.
   * @returns those that are not any more until their next start, when who tells them had died
   */
  async keepServed(): Promise<Vmid[]> {
    const running = await this.records.all()
    if (!(await this.lxc.keepServed())) return []
    const found = await Promise.all(running.map(async (vmid) => ((await this.lxc.running(vmid)) ? [vmid] : [])))
    return found.flat()
  }

  /** Where an image of a running container is mounted; undefined when it is not. */
  async mountOf(vmid: Vmid, name: string): Promise<string | undefined> {
    const target = join(mountsDirOf(this.#volumeNeeds.runDir, vmid), name)
    return (await mountPoints()).includes(target) ? target : undefined
  }

  /** Its init, as the node sees it. @throws Fault `conflict` 'CT 100 not running' */
  async initOf(vmid: Vmid): Promise<number> {
    await this.documents.get(vmid, 'lxc')
    return this.lxc.initPid(vmid)
  }

  /** Runs a program inside to its end. @throws Fault `conflict` 'CT 100 not running', `timeout`, `exhausted` */
  async runInside(vmid: Vmid, { command, ...how }: RunInside): Promise<RanInside> {
    await this.documents.get(vmid, 'lxc')
    const { options } = await this.lxc.requireRunning(vmid)
    if (await this.lxc.isFrozen(vmid)) {
      throw new Fault('conflict', `CT ${vmid} is suspended`, { remedy: `Let it go on: hako ct resume ${vmid}.` })
    }
    return this.#host.run(this.lxc.attachArgv(vmid, command, options), { ...how, okCodes: allCodes, cwd: '/' })
  }

  /** The command that joins a terminal to the container, in the way its options say. */
  async terminalArgv(vmid: Vmid): Promise<Argv> {
    const { options } = await this.documents.get(vmid, 'lxc')
    const { options: running } = await this.lxc.requireRunning(vmid)
    switch (options.cmode) {
      case 'shell':
        return this.lxc.attachArgv(vmid, ['/bin/sh', '-l'], running)
      case 'console':
        return this.lxc.consoleArgv(vmid, 0)
      default:
        return this.lxc.consoleArgv(vmid, -1)
    }
  }
}

const allCodes = Array.from({ length: 256 }, (_, code) => code)
