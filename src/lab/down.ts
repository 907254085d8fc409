/**
 * Takes a node off the machine, with everything it ever made there and nothing else.
 *
 * It works when the daemon is dead and the state is damaged, because it goes by what the machine shows
 * (program, environment, names with the node's prefix, notes on links), and uses what was written down only
 * where it can be read. Asking the daemon to clean up after itself would be shorter, and would fail
 * exactly when it is needed.
 *
 * At the end it looks again: whatever is still there is named, and is a failure.
 */
import { existsSync } from 'node:fs'
import { readdir, rm, rmdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { systemClock } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { Cgroups } from '#host/cgroups/cgroup.ts'
import { codeOf } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { links } from '#host/network/ip.ts'
import { removeLocksBelow } from '#host/lxc/lxc.ts'
import { mountPoints, unmountBelow } from '#host/disks/mount.ts'
import { listNetns } from '#host/network/netns.ts'
import { listChains } from '#host/network/nft.ts'
import { commandLineOf, endProcess, findProcesses, startTimeOf } from '#host/programs/proc.ts'
import { namesOf } from '#network/names.ts'
import { NetworkService } from '#network/service.ts'
import { openMemoryStore } from '#store/memory.ts'
import { openSqliteStore } from '#store/sqlite.ts'
import type { Store } from '#store/store.ts'
import type { Settings } from '#settings.ts'
import { nodeProcesses, stopNode } from './daemon.ts'

export interface TakeDown {
  readonly settings: Settings
  readonly host: Host
  /** Also the cache, and the mount point of namespaces when it is empty: what several nodes may share. */
  readonly alsoShared?: boolean
  /** Told what was removed, a few words each. */
  readonly say?: (line: string) => void
}

/** What a node has on the machine, by name. Empty lists: nothing stays. */
export interface Remains {
  readonly processes: readonly string[]
  readonly links: readonly string[]
  readonly namespaces: readonly string[]
  readonly tables: readonly string[]
  readonly mounts: readonly string[]
  readonly cgroups: readonly string[]
  readonly directories: readonly string[]
}

/** Programs a node starts for its guests and networks. */
const tools = /^(qemu-[a-z0-9_-]+|dnsmasq|swtpm|dbus-daemon|virtiofsd|setpriv|nsenter|lxcfs|lxc-start)$/

/** @returns what was there before. @throws Fault `failed` naming what could not be removed */
export async function takeDown(request: TakeDown): Promise<Remains> {
  const { settings, host, say = () => {} } = request
  const before = await remains(request)
  for (const [kind, things] of Object.entries(before)) {
    if (things.length > 0) say(`${kind}: ${things.join(', ')}`)
  }
  await stopNode(settings)
  const cgroups = await Cgroups.detect()
  const group = groupOf(settings)
  await cgroups.killAll(group)
  for (const { pid } of await toolProcesses(settings)) await endProcess(pid, await startTimeOf(pid), { graceMs: 2_000 })
  await removeNetworks(settings, host)
  for (const directory of directoriesOf(request)) {
    await unmountBelow(host, directory)
    await removeLocksBelow(directory)
    await rm(directory, { recursive: true, force: true })
    await removeIfEmpty(dirname(directory))
  }
  await cgroups.removeGroup(group)
  if (request.alsoShared) await removeNamespaceMount(host)
  await requireNothing(request)
  return before
}

/** Looks at the machine. Changes nothing. */
export async function remains(request: Pick<TakeDown, 'settings' | 'host' | 'alsoShared'>): Promise<Remains> {
  const { settings, host } = request
  const names = namesOf(settings.instance)
  const programs = (await nodeProcesses(settings)).filter((pid) => pid !== process.pid)
  const directories = directoriesOf(request)
  return {
    processes: [
      ...programs.map((pid) => `node ${pid}`),
      ...(await toolProcesses(settings)).map(({ name, pid }) => `${name} ${pid}`),
    ],
    links: (await links(host)).filter(names.isOurLink).map(({ name }) => name),
    namespaces: (await listNetns(host)).filter(names.isOurNetns),
    tables: [...new Set((await listChains(host)).map(({ table }) => table))].filter((table) => table === names.table),
    mounts: (await mountPoints()).filter((path) => directories.some((directory) => path.startsWith(`${directory}/`))),
    cgroups: (await groupDirectories(settings)).filter((path) => existsSync(path)),
    directories: directories.filter((path) => existsSync(path)),
  }
}

function groupOf({ instance }: Settings): string {
  return `hakobune-${instance}`
}

/** Where its control group is, in each tree. */
async function groupDirectories(settings: Settings): Promise<string[]> {
  const { layout } = await Cgroups.detect()
  const trees = layout.version === 'v2' ? [layout.tree] : [...new Set(Object.values(layout.trees))]
  return trees.map((tree) => join(tree, groupOf(settings)))
}

function directoriesOf({ settings, alsoShared = false }: Pick<TakeDown, 'settings' | 'alsoShared'>): string[] {
  const { stateDir, runDir, cacheDir } = settings
  return alsoShared ? [stateDir, runDir, cacheDir] : [stateDir, runDir]
}

/** Known by a path of this node among their arguments. */
async function toolProcesses({ runDir, stateDir }: Settings): Promise<{ name: string; pid: number }[]> {
  const isOurs = (word: string) => word.includes(`${runDir}/`) || word.includes(`${stateDir}/`)
  const pids = await findProcesses((argv) => tools.test(basename(argv[0] ?? '')) && argv.some(isOurs))
  return Promise.all(pids.map(async (pid) => ({ pid, name: basename((await commandLineOf(pid))[0] ?? '') })))
}

async function removeNetworks(settings: Settings, host: Host): Promise<void> {
  await using store = await storeOf(settings)
  const needs = { settings, host, store, clock: systemClock, random: systemRandom, log: silentLog }
  await new NetworkService(needs).removeEverything()
}

/** What the node wrote down, or nothing where that is gone or cannot be read. */
async function storeOf({ stateDir }: Settings): Promise<Store> {
  const path = join(stateDir, 'store.sqlite')
  try {
    if (existsSync(path)) return await openSqliteStore(path)
  } catch (error) {
    // Damaged state must not keep anything on the machine: names and notes say enough.
    if (!(error instanceof Fault)) throw error
  }
  return openMemoryStore()
}

/** The directory nodes share, when this was the last of them. */
async function removeIfEmpty(directory: string): Promise<void> {
  if (!basename(directory).startsWith('hakobune')) return
  try {
    await rmdir(directory)
  } catch (error) {
    if (!['ENOENT', 'ENOTEMPTY', 'EEXIST', 'EBUSY'].includes(codeOf(error) ?? '')) throw error
  }
}

/** `ip netns add` mounts a directory onto itself and leaves it so; it makes it again when it needs it. */
async function removeNamespaceMount(host: Host): Promise<void> {
  const directory = '/run/netns'
  const names = await readdir(directory).catch(() => undefined)
  if (names?.length !== 0) return
  await unmountBelow(host, directory)
  await rmdir(directory)
}

async function requireNothing(request: TakeDown): Promise<void> {
  const left = Object.entries(await remains(request)).filter(([, things]) => things.length > 0)
  if (left.length === 0) return
  const list = left.map(([kind, things]) => `${kind} ${things.join(', ')}`).join('; ')
  throw new Fault('failed', `not everything could be removed: ${list}`, {
    remedy: 'Run `hako lab down` again; what stays then is in use by somebody else.',
  })
}
