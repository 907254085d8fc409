/** What only containers have: volumes that are mounted, programs run inside, and terminals. */
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { loaderFor, once } from '#base/on-demand.ts'
import type { Argv } from '#host/host.ts'
import { freeze, mountPoints, thaw, writeOut } from '#host/disks/mount.ts'
import { inNetns } from '#host/network/netns.ts'
import { resizeTerminalWithin } from '#host/programs/terminal-size.ts'
import type { Options } from './config.ts'
import type * as containerFiles from './container-files.ts'
import { closeVolumes, mountedImages, mountsDirOf, openVolumes, type VolumeNeeds } from './lxc/volumes.ts'
import { joinVolumes } from './lxc/joined-volumes.ts'
import { GuestMachines } from './machines.ts'
import type { RegistryNeeds } from './registry.ts'

const load = loaderFor(import.meta.url)

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
  readonly #files: () => containerFiles.ContainerFiles
  readonly #host: RegistryNeeds['host']
  readonly #volumeNeeds: VolumeNeeds

  constructor(needs: RegistryNeeds) {
    super(needs)
    this.#host = needs.host
    this.#files = once(() => {
      const { ContainerFiles } = load<typeof containerFiles>('./container-files.ts')
      return new ContainerFiles({ documents: this.documents, lxc: this.lxc, storage: needs.storage })
    })
    this.#volumeNeeds = { ...needs, runDir: needs.settings.runDir }
  }

  get files(): containerFiles.ContainerFiles {
    return this.#files()
  }

  /**
   * Shows volumes of a container that does not run, for as long as `act` takes.
   * @param at as they are in that snapshot, only to be read; then the container may run
   */
  async withVolumes<T>(
    vmid: Vmid,
    options: Options,
    act: (places: Readonly<Record<string, string>>) => Promise<T>,
    at?: string,
  ): Promise<T> {
    try {
      return await act(await openVolumes(this.#volumeNeeds, vmid, options, at))
    } finally {
      await this.closeVolumes(vmid, at)
    }
  }

  /**
   * Shows volumes until they are closed: of a running container, where they are mounted for it.
   * @param how.at as they are in that snapshot, only to be read
   * @param how.isReadOnly nothing of what is mounted for this is written to
   */
  async openVolumes(
    vmid: Vmid,
    options: Options,
    { at, isReadOnly }: { readonly at?: string; readonly isReadOnly?: boolean } = {},
  ): Promise<Readonly<Record<string, string>>> {
    try {
      return await openVolumes(this.#volumeNeeds, vmid, options, at, isReadOnly)
    } catch (cause) {
      if (at !== undefined || !(await this.records.running(vmid))) await this.closeVolumes(vmid, at)
      throw cause
    }
  }

  /** As `withVolumes`, all of them in one tree, as the container will see them. They are empty. */
  async withWholeTree<T>(vmid: Vmid, options: Options, act: (root: string) => Promise<T>): Promise<T> {
    return this.withVolumes(vmid, options, async (places) =>
      act(await joinVolumes(this.#volumeNeeds, vmid, options, places)),
    )
  }

  /** For whoever undoes the work of a process that died with volumes open. Idempotent. */
  async closeVolumes(vmid: Vmid, at?: string): Promise<void> {
    await closeVolumes(this.#volumeNeeds, vmid, at)
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

  /**
   * Holds a running container still while `act` takes a moment of its volumes: no process of it runs, and what it wrote
   * is on its images. One that was suspended stays so. It goes on whatever happens; for the case that this process
   * dies on the way there is `letGo`.
   */
  async whileHeld<T>(vmid: Vmid, act: () => Promise<T>): Promise<{ readonly result: T; readonly heldMs: number }> {
    const { options } = await this.lxc.requireRunning(vmid)
    const isSuspended = await this.lxc.isFrozen(vmid)
    const images = await mountedImages(this.#volumeNeeds.runDir, vmid, options)
    // Most is written before it is held, so that it is not held for long.
    for (const image of images) await writeOut(this.#host, image)
    const startedMs = performance.now()
    let result: T
    try {
      await this.lxc.freeze(vmid, true)
      for (const image of images) await freeze(this.#host, image)
      result = await act()
    } finally {
      await this.letGo(vmid, { isSuspended })
    }
    return { result, heldMs: Math.round(performance.now() - startedMs) }
  }

  /** Lets a container go on that is held; nothing happens to one that is not. */
  async letGo(vmid: Vmid, { isSuspended }: { readonly isSuspended: boolean }): Promise<void> {
    const record = await this.lxc.running(vmid)
    if (!record) return
    for (const image of await mountedImages(this.#volumeNeeds.runDir, vmid, record.options)) {
      await thaw(this.#host, image)
    }
    if (!isSuspended && (await this.lxc.isFrozen(vmid))) await this.lxc.freeze(vmid, false)
  }

  /** Its init, as the node sees it. @throws Fault `conflict` 'CT 100 not running' */
  async initOf(vmid: Vmid): Promise<number> {
    await this.documents.get(vmid, 'lxc')
    return this.lxc.initPid(vmid)
  }

  /** Runs a program inside to its end. @throws Fault `conflict` 'CT 100 not running', `timeout`, `exhausted` */
  async runInside(vmid: Vmid, { command, ...how }: RunInside): Promise<RanInside> {
    await this.documents.get(vmid, 'lxc')
    const { options, netns } = await this.lxc.requireRunning(vmid)
    if (await this.lxc.isFrozen(vmid)) {
      throw new Fault('conflict', `CT ${vmid} is suspended`, { remedy: `Let it go on: hako ct resume ${vmid}.` })
    }
    const argv = beside(netns, this.lxc.attachArgv(vmid, command, options))
    return this.#host.run(argv, { ...how, okCodes: allCodes, cwd: '/' })
  }

  /** Tells its console how large it is: LXC gives that to several at once, and takes the size of none of them. */
  async resizeConsole(vmid: Vmid, columns: number, rows: number): Promise<void> {
    const { options } = await this.documents.get(vmid, 'lxc')
    if (options.cmode !== 'console') return
    const init = await this.lxc.initPid(vmid)
    resizeTerminalWithin(`/proc/${init}/root`, '/dev/console', { columns, rows })
  }

  /** The command that joins a terminal to the container, in the way its options say. */
  async terminalArgv(vmid: Vmid): Promise<Argv> {
    const { options } = await this.documents.get(vmid, 'lxc')
    const { options: running, netns } = await this.lxc.requireRunning(vmid)
    switch (options.cmode) {
      case 'shell':
        return beside(netns, this.lxc.attachArgv(vmid, ['/bin/sh', '-l'], running))
      case 'console':
        return beside(netns, this.lxc.consoleArgv(vmid, 0))
      default:
        return beside(netns, this.lxc.consoleArgv(vmid, -1))
    }
  }
}

/** Where its monitor is: that listens at a socket whose name means nothing in other networks. */
function beside(netns: string, argv: Argv): Argv {
  return inNetns(netns === '' ? undefined : netns, argv)
}

const allCodes = Array.from({ length: 256 }, (_, code) => code)
