/** A small world of real guests for tests: services on directories of their own, removed at the end of the scope. */
import { chmod, cp, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { after } from 'node:test'
import { systemClock } from '#base/clock.ts'
import type { Vmid } from '#base/ids.ts'
import { asVmid } from '#base/ids.ts'
import { silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import type { Options } from '#guests/config.ts'
import { qemuProgram } from '#guests/qemu/launch.ts'
import { GuestService } from '#guests/service.ts'
import { Cgroups } from '#host/cgroups/cgroup.ts'
import { machine } from '#host/exec.ts'
import { makeDirectory } from '#host/files.ts'
import type { Host, RunResult } from '#host/host.ts'
import { unmountBelow } from '#host/disks/mount.ts'
import { NetworkService } from '#network/service.ts'
import { StorageService } from '#storage/service.ts'
import { openMemoryStore } from '#store/memory.ts'
import { openSqliteStore } from '#store/sqlite.ts'
import type { Json, Store } from '#store/store.ts'
import { diskServerOf } from '../../src/services.ts'
import { type Settings, settingsFrom } from '../../src/settings.ts'
import { freshInstance } from '../own-names.ts'

export interface GuestWorld extends AsyncDisposable {
  readonly settings: Settings
  readonly store: Store
  readonly guests: GuestService
  readonly storage: StorageService
  readonly network: NetworkService
  /** Another service on the same node, as another process would have it. */
  readonly another: () => GuestService
  /** Adds the storage `local`, a directory for disks and ISO images. */
  readonly addStorage: () => Promise<void>
  /** Every file below the storage, sorted; hidden ones too. */
  readonly filesOfStorage: () => Promise<string[]>
  /** Makes a bridge with DHCP and no way out, and returns its name. */
  readonly addBridge: () => Promise<string>
  readonly id: (vmid: number) => Vmid
  /** Writes the configuration of a guest that is tiny unless the options say otherwise. */
  readonly define: (vmid: number, options?: Options) => Promise<Vmid>
}

/** A guest that starts in a blink: no disk, 16 MiB, no screen; its firmware finds nothing to boot. */
export const tinyGuest: Options = { memory: '16', vga: 'none', balloon: '0', serial0: 'socket' }

export interface WorldOptions {
  /** The node of a world that exists: another process on the same machine. */
  readonly settings?: Settings
  /** A store without a disk, for tests that make many worlds. */
  readonly forgetful?: boolean
  /** Begins with the files and the store of this world, in which no guest runs. */
  readonly like?: GuestWorld
}

export async function guestWorld({ settings, forgetful = false, like }: WorldOptions = {}): Promise<GuestWorld> {
  const own = settings ?? (await freshSettings())
  // Guests' processes pass through on their way to their disks.
  await chmod(own.stateDir, 0o711)
  const store = forgetful ? openMemoryStore() : await openSqliteStore(join(own.stateDir, 'store.sqlite'))
  const host = machine()
  if (like) await beginLike(like, own, store)
  const needs = { settings: own, store, host, clock: systemClock, random: systemRandom, log: silentLog }
  const storage = new StorageService(needs)
  const network = new NetworkService(needs)
  const unknown = async () => undefined
  // Every name of a folder means the one folder this world has.
  const devices = {
    usbMapping: unknown,
    pciMapping: unknown,
    cpuModel: unknown,
    directoryMapping: async () => own.stateDir,
  }
  const another = () => new GuestService({ ...needs, storage, network, devices, diskServer: diskServerOf(own) })
  const guests = another()
  let hasBridge = false
  return {
    settings: own,
    store,
    guests,
    storage,
    network,
    another,
    id: asVmid,
    async addStorage() {
      const path = join(own.stateDir, 'storage')
      await makeDirectory(path)
      await storage.create({ storage: 'local', type: 'dir', path, content: 'images,iso,rootdir,snippets,vztmpl' })
    },
    async filesOfStorage() {
      const entries = await readdir(join(own.stateDir, 'storage'), { recursive: true, withFileTypes: true })
      return entries
        .flatMap((entry) => (entry.isFile() ? [relative(own.stateDir, join(entry.parentPath, entry.name))] : []))
        .toSorted()
    },
    async addBridge() {
      hasBridge = true
      const name = `hk${own.instance}0`
      await network.ensureBridge({ name, cidr: await network.freeSubnet(), nat: false })
      return name
    },
    async define(vmid, options = {}) {
      const id = asVmid(vmid)
      await guests.reserve(id, 'test')
      await guests.writeConfig(id, { ...tinyGuest, ...options }, { owner: 'test' })
      return id
    },
    async [Symbol.asyncDispose]() {
      for (const vmid of await guests.adopt()) await guests.stop(vmid)
      if (hasBridge) await network.removeEverything()
      await store[Symbol.asyncDispose]()
      // Guests leave the group they shared, and what served them; nobody else has one of this name.
      const cgroups = await Cgroups.detect()
      await cgroups.killAll(`hakobune-${own.instance}`)
      await cgroups.removeGroup(`hakobune-${own.instance}`)
      await unmountBelow(host, own.runDir)
      await rm(own.stateDir, { recursive: true })
      await rm(own.runDir, { recursive: true, force: true })
    },
  }
}

/**
 * Worlds that begin alike: the first is made, and each that is asked for begins with a copy of it. For tests that
 * make many: copying a disk takes no process for each of its parts.
 */
export function copiesOf<World extends GuestWorld>(
  make: () => Promise<World>,
  again: (options: WorldOptions) => Promise<World>,
): () => Promise<World> {
  let first: Promise<World> | undefined
  after(async () => (await first)?.[Symbol.asyncDispose]())
  return async () => again({ forgetful: true, like: await (first ??= make()) })
}

/** This machine, which is asked for the version of its QEMU once: tests that make hundreds of guests would ask each time. */
export function machineOfOneVersion(): Host {
  const host = machine()
  let version: Promise<RunResult> | undefined
  return {
    run: (argv, options) =>
      argv.join(' ') === `${qemuProgram} --version` ? (version ??= host.run(argv, options)) : host.run(argv, options),
  }
}

async function beginLike(like: GuestWorld, own: Settings, store: Store): Promise<void> {
  const [from, to] = [like.settings.stateDir, own.stateDir]
  await cp(from, to, { recursive: true })
  const entries = await like.store.list('')
  // A storage is where its world is.
  const moved = (value: Json) => JSON.parse(JSON.stringify(value).replaceAll(from, to)) as Json
  await store.transact(
    [],
    entries.map(({ key, value }) => ({ put: key, value: moved(value) })),
  )
}

export async function freshSettings(): Promise<Settings> {
  const instance = freshInstance('g')
  const stateDir = await mkdtemp(`/var/tmp/hako-${instance}-`)
  await mkdir('/run/hakobune-test', { recursive: true, mode: 0o711 })
  return settingsFrom({
    HAKO_INSTANCE: instance,
    HAKO_NODE: 'testnode',
    HAKO_STATE_DIR: stateDir,
    HAKO_RUN_DIR: `/run/hakobune-test/${instance}`,
  })
}
