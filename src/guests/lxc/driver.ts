/**
 * The life of a container: start, stop, and everything in between.
 *
 * As of virtual machines, what a start makes (cables, mounts, run directory, control groups, processes) is covered by a
 * run record from before it is made until after it is gone. The process of the record is LXC's monitor: it stays when
 * the container reboots by itself, and goes when the container ends. Nothing here reads or writes configurations.
 */
import { existsSync } from 'node:fs'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { allDone } from '#base/all-done.ts'
import { waitFor } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { loaderFor } from '#base/on-demand.ts'
import type { Errors } from '#base/schema/check.ts'
import { Cgroups } from '#host/cgroups/cgroup.ts'
import { makeDirectory } from '#host/files.ts'
import { requireAllowed } from '#host/lxc/id-map.ts'
import {
  attachArgv,
  configPathOf,
  consoleArgv,
  type ContainerPlace,
  initOf,
  removeLocks,
  startContainer,
  tellToShutDown,
} from '#host/lxc/lxc.ts'
import { ensureLxcfs, lxcfsHasDied, servedFiles, servedProcessors } from '#host/lxc/lxcfs.ts'
import type { Argv } from '#host/host.ts'
import { isAlive, startTimeOf } from '#host/programs/proc.ts'
import { onlineProcessors } from '#host/system/topology.ts'
import type { Options } from '../config.ts'
import type { Use } from '../counters.ts'
import type { GuestDriver } from '../driver.ts'
import type { StartOptions } from '../guest.ts'
import type { DriverNeeds } from '../qemu/driver.ts'
import { boundLogs, keepLogs } from '../qemu/log-files.ts'
import type { ContainerRecord, ProcessName, RunRecord, RunRecords } from '../run-record.ts'
import type * as beforeStart from './before-start.ts'
import { containerConf } from './conf.ts'
import { devicesOf } from './device.ts'
import { makeDevices } from './device-nodes.ts'
import { environmentOf } from './environment.ts'
import { featuresOf } from './features.ts'
import { idMapOf, rootOf } from './idmap.ts'
import { changeCard } from './cards.ts'
import { coresOf, groupLimitsOf, leastUsed, noQuota, processorsIn } from './limits.ts'
import { follow, isCard } from './live.ts'
import { nicsOf } from './nic.ts'
import { rebootHook } from './reboot-hook.ts'
import { seccompProfile } from './seccomp.ts'
import { useOf } from './use.ts'
import { closeVolumes, mountsDirOf, openVolumes, seenVolumes } from './volumes.ts'

const load = loaderFor(import.meta.url)
const startLimitMs = 60_000
/** How long the kernel may take to put away a process that was killed. */
const endLimitMs = 10_000
const startLog = 'lxc.log'

export class LxcDriver implements GuestDriver {
  readonly #needs: DriverNeeds
  readonly #records: RunRecords
  #cgroups: Promise<Cgroups> | undefined

  constructor(needs: DriverNeeds, records: RunRecords) {
    this.#needs = needs
    this.#records = records
  }

  runDirOf(vmid: Vmid): string {
    return join(this.#needs.settings.runDir, 'guests', String(vmid))
  }

  groupOf(vmid: Vmid): string {
    return `hakobune-${this.#needs.settings.instance}/lxc-${vmid}`
  }

  /** The group that has the limits; LXC's monitor is in one beside it. */
  #innerGroupOf(vmid: Vmid): string {
    return `${this.groupOf(vmid)}/container`
  }

  #placeOf(vmid: Vmid): ContainerPlace {
    return { directory: join(this.#needs.settings.runDir, 'guests'), name: String(vmid) }
  }

  async running(vmid: Vmid): Promise<ContainerRecord | undefined> {
    const record = await this.#records.running(vmid)
    return record?.kind === 'lxc' ? record : undefined
  }

  /** @throws Fault `conflict` 'CT 100 not running' */
  async requireRunning(vmid: Vmid): Promise<ContainerRecord> {
    const record = await this.running(vmid)
    if (!record) throw new Fault('conflict', `CT ${vmid} not running`)
    return record
  }

  /**
   * Starts the container and returns once its init runs. On failure, and on abort, nothing remains.
   * @throws Fault `conflict` when it runs, `failed` with LXC's words when it does not start
   */
  async start(vmid: Vmid, options: Options, how: StartOptions = {}): Promise<void> {
    await this.reap(vmid, { waits: true })
    const starter = { pid: process.pid, startTime: (await startTimeOf(process.pid)) ?? 0 }
    const { startedBy = '', netns = '' } = how
    await this.#records.begin(vmid, { state: 'starting', kind: 'lxc', starter, startedBy, netns })
    try {
      await this.#start(vmid, options, how)
    } catch (fault) {
      await this.#cleanUp(vmid, how.netns)
      await this.#records.remove(vmid)
      throw fault
    }
  }

  async #start(vmid: Vmid, options: Options, how: StartOptions): Promise<void> {
    const { host, settings } = this.#needs
    const { log = () => {}, signal, timeoutMs = startLimitMs } = how
    const runDir = this.runDirOf(vmid)
    await makeRunDir(runDir)
    const map = idMapOf(options)
    if (map !== undefined) await requireAllowed(map)
    const cables = await this.#plug(vmid, options, how)
    const { runDir: nodeDir } = settings
    const places = await openVolumes({ ...this.#needs, runDir: nodeDir }, vmid, options)
    const told = how.toldName === undefined ? options : { ...options, hostname: how.toldName }
    await this.#setUp(vmid, told, places.rootfs ?? '')
    const sources = await seenVolumes({ runDir: nodeDir }, vmid, { options, places })
    const place = this.#placeOf(vmid)
    const consoleLog = how.keepsConsole === true ? join(runDir, 'console.log') : undefined
    const conf = await this.#confFor(vmid, told, { sources, cables, runDir, consoleLog })
    await writeFile(configPathOf(place), conf, { mode: 0o600 })
    await writeFile(join(runDir, 'seccomp'), seccompProfile(featuresOf(options)), { mode: 0o600 })
    const groups = (await this.#groups()).directoriesOf(this.#innerGroupOf(vmid))
    await writeFile(join(runDir, 'reboot'), rebootHook(groups), { mode: 0o700 })
    signal?.throwIfAborted()
    const started = await startContainer(host, {
      place,
      programs: join(nodeDir, 'lxc-programs'),
      logFile: join(runDir, startLog),
      pidFile: join(runDir, 'monitor.pid'),
      netnsPath: how.netns === undefined ? undefined : `/run/netns/${how.netns}`,
      timeoutMs,
      signal,
    })
    await this.#records.write(vmid, {
      state: 'running',
      kind: 'lxc',
      process: started,
      startedBy: how.startedBy ?? '',
      options,
      netns: how.netns ?? '',
      taps: Object.fromEntries(cables.map(({ nic, tap }) => [nic, tap])),
    })
    log(`started, led by process ${started.pid}`)
  }

  /** Writes into its files what follows from its options. */
  async #setUp(vmid: Vmid, options: Options, rootfs: string): Promise<void> {
    const { setUpBeforeStart } = load<typeof beforeStart>('./before-start.ts')
    await setUpBeforeStart(this.#needs.log, vmid, options, rootfs)
  }

  async #confFor(
    vmid: Vmid,
    options: Options,
    made: {
      readonly sources: Readonly<Record<string, string>>
      readonly cables: readonly { readonly nic: string; readonly cable: string }[]
      readonly runDir: string
      readonly consoleLog: string | undefined
    },
  ): Promise<string> {
    const { host, settings, log } = this.#needs
    const cgroups = await this.#groups()
    const { files, unkept } = cgroups.limitsAsFiles(groupLimitsOf(options))
    if (unkept.length > 0) log.warn(`this machine cannot keep some limits of CT ${vmid}`, { limits: unkept })
    const { target } = await this.#ensureLxcfs()
    const cores = coresOf(options)
    return containerConf(options, {
      vmid,
      rootfs: made.sources.rootfs ?? '',
      group: this.groupOf(vmid),
      cgroupVersion: cgroups.layout.version,
      limits: files,
      processors: cores === undefined ? undefined : await this.#processorsFor(vmid, cores),
      rebootHook: join(made.runDir, 'reboot'),
      seccompFile: join(made.runDir, 'seccomp'),
      consoleLog: made.consoleLog,
      hasAppArmor: existsSync('/sys/kernel/security/apparmor/profiles'),
      served: { target, files: servedFiles, processors: servedProcessors },
      sources: made.sources,
      cables: Object.fromEntries(made.cables.map(({ nic, cable }) => [nic, cable])),
      devices: await makeDevices(host, join(mountsDirOf(settings.runDir, vmid), 'devices'), {
        devices: devicesOf(options),
        root: rootOf(options),
      }),
    })
  }

  async #ensureLxcfs() {
    const { host, settings } = this.#needs
    const group = { cgroups: await this.#groups(), name: `hakobune-${settings.instance}/lxcfs` }
    return ensureLxcfs(host, { directory: this.#lxcfsDir, group })
  }

  get #lxcfsDir(): string {
    return join(this.#needs.settings.runDir, 'lxcfs')
  }

  /** Starts what serves containers again when it has died. @returns whether it had */
  async keepServed(): Promise<boolean> {
    if (!(await lxcfsHasDied(this.#lxcfsDir))) return false
    await this.#ensureLxcfs()
    return true
  }

  /** Processors the fewest other containers are held to. */
  async #processorsFor(vmid: Vmid, cores: number): Promise<string | undefined> {
    const online = processorsIn(await onlineProcessors())
    if (cores >= online.length) return undefined
    const taken = await Promise.all(
      (await this.#records.all()).filter((one) => one !== vmid).map((one) => this.#heldTo(one)),
    )
    return leastUsed(cores, online, taken)
  }

  async #heldTo(vmid: Vmid): Promise<number[]> {
    return processorsIn((await (await this.#groups()).processorsOf(this.#innerGroupOf(vmid))) ?? '')
  }

  async #plug(
    vmid: Vmid,
    options: Options,
    how: StartOptions,
  ): Promise<{ readonly nic: string; readonly tap: string; readonly cable: string }[]> {
    const cables: { nic: string; tap: string; cable: string }[] = []
    for (const { name, mac, bridge: own, tag, trunks, rate, mtu, isLinkDown: isDown } of nicsOf(options)) {
      const bridge = how.bridge ?? own
      const isWanted = how.onlyNics === undefined || how.onlyNics.includes(name)
      if (bridge === undefined || !isWanted) continue
      // A bridge that stands in for the card's own has none of its VLANs.
      const where =
        how.netns !== undefined ? { netns: how.netns } : how.bridge === undefined ? { tag, trunks, rate } : {}
      const card = { vmid, nic: name, mac, bridge, isDown, mtu, ...where }
      cables.push({ nic: name, ...(await this.#needs.network.plugCable(card)) })
    }
    return cables
  }

  #groups(): Promise<Cgroups> {
    return (this.#cgroups ??= Cgroups.detect())
  }

  /** Ends it at once, with all that runs inside, and cleans up. */
  async stop(vmid: Vmid): Promise<void> {
    const { process: monitor, netns } = await this.requireRunning(vmid)
    const cgroups = await this.#groups()
    // The monitor with the rest: what it would put away, slowly, is cleaned up here as after a monitor that died.
    await allDone([cgroups.killAll(this.groupOf(vmid)), this.#unplug(vmid, netns)])
    await untilGone(monitor, endLimitMs)
    await this.reap(vmid, { waits: true })
  }

  /** Tells its init to shut down. */
  async askToShutDown(vmid: Vmid): Promise<void> {
    await tellToShutDown(await this.initPid(vmid))
  }

  /** Its init, as the node sees it. @throws Fault `conflict` when it is on its way down, or up */
  async initPid(vmid: Vmid): Promise<number> {
    const { process: monitor } = await this.requireRunning(vmid)
    const init = await initOf(monitor.pid)
    if (init === undefined) throw new Fault('conflict', `CT ${vmid} not running`)
    return init
  }

  async freeze(vmid: Vmid, frozen: boolean): Promise<void> {
    await this.requireRunning(vmid)
    await (await this.#groups()).freeze(this.#innerGroupOf(vmid), frozen)
  }

  async isFrozen(vmid: Vmid): Promise<boolean> {
    await this.requireRunning(vmid)
    return (await this.#groups()).isFrozen(this.#innerGroupOf(vmid))
  }

  /** What it uses now; undefined when it ended meanwhile. */
  async use(vmid: Vmid, record: ContainerRecord): Promise<Use | undefined> {
    return useOf(record, { cgroups: await this.#groups(), group: this.#innerGroupOf(vmid) })
  }

  /** The command that runs another one inside. */
  attachArgv(vmid: Vmid, command: readonly string[], options: Options): Argv {
    return attachArgv(this.#placeOf(vmid), { command, env: environmentOf(options) })
  }

  /** The command that is joined to one of its terminals. */
  consoleArgv(vmid: Vmid, tty: number): Argv {
    return consoleArgv(this.#placeOf(vmid), tty)
  }

  async changeLive(
    vmid: Vmid,
    wanted: Options,
    { log = () => {} }: { log?: (line: string) => void } = {},
  ): Promise<Errors> {
    const record = await this.running(vmid)
    if (!record) return {}
    const { host, network } = this.#needs
    const { options, followed, errors } = await follow(record.options, wanted, {
      limit: async (now) =>
        (await this.#groups()).limit(this.#innerGroupOf(vmid), { cpuQuota: noQuota, ...groupLimitsOf(now) }),
      card: async (before, after) => {
        // One in a network of a drill's stays there.
        const tap = record.netns === '' ? record.taps[after.name] : undefined
        await changeCard({ host, network, vmid, init: await this.initPid(vmid), tap }, before, after)
      },
    })
    if (followed.length === 0) return errors
    await this.#records.write(vmid, { ...record, options })
    if (followed.some(isCard)) await this.#tellCards(vmid, options)
    for (const name of followed) log(`${name}: changed while the container runs`)
    return errors
  }

  /** What its system reads at its next start. */
  async #tellCards(vmid: Vmid, options: Options): Promise<void> {
    const { settings } = this.#needs
    const { rootfs = '' } = await openVolumes({ ...this.#needs, runDir: settings.runDir }, vmid, options)
    await this.#setUp(vmid, options, rootfs)
  }

  async reap(vmid: Vmid, how: { readonly waits?: boolean } = {}): Promise<boolean> {
    const claimed = await this.#records.claim(vmid)
    const record = claimed ?? (how.waits === true ? await this.#records.abandoned(vmid) : undefined)
    if (record === undefined) return false
    await this.#cleanUp(vmid, netnsOf(record))
    await this.#records.finish(vmid)
    return true
  }

  async #cleanUp(vmid: Vmid, netns: string | undefined): Promise<void> {
    const { host, settings } = this.#needs
    const cgroups = await this.#groups()
    await cgroups.killAll(this.groupOf(vmid))
    await allDone([
      cgroups.removeGroup(this.groupOf(vmid)),
      this.#unplug(vmid, netns),
      closeVolumes({ host, runDir: settings.runDir }, vmid),
    ])
    await removeLocks(this.#placeOf(vmid))
    await keepLogs(this.runDirOf(vmid))
  }

  #unplug(vmid: Vmid, netns = ''): Promise<void> {
    return this.#needs.network.unplug({ vmid, ...(netns === '' ? {} : { netns }) })
  }

  async forget(vmid: Vmid): Promise<void> {
    await this.reap(vmid, { waits: true })
    if (await this.#records.alive(vmid)) return
    const { host, settings, network } = this.#needs
    // A machine that was off has lost the run record, and with it what would have led to the guest's cables.
    await network.unplug({ vmid })
    await closeVolumes({ host, runDir: settings.runDir }, vmid)
    await rm(this.runDirOf(vmid), { recursive: true, force: true })
  }

  async boundLogs(vmid: Vmid): Promise<void> {
    await boundLogs(this.runDirOf(vmid), 0)
  }
}

async function makeRunDir(runDir: string): Promise<void> {
  await rm(runDir, { recursive: true, force: true })
  await makeDirectory(runDir.slice(0, runDir.lastIndexOf('/')))
  await mkdir(runDir, { mode: 0o711 })
}

/** @throws Fault `timeout` */
async function untilGone({ pid, startTime }: ProcessName, timeoutMs: number): Promise<void> {
  await waitFor(async () => !(await isAlive(pid, startTime)), { what: `end of process ${pid}`, timeoutMs, everyMs: 2 })
}

function netnsOf(record: RunRecord | 'unreadable'): string | undefined {
  return record !== 'unreadable' && record.netns !== '' ? record.netns : undefined
}
