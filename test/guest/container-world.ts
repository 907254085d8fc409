/** A world of containers made without the operations that are tested, on a folder and on btrfs. */
import { lstat, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import type { Vmid } from '#base/ids.ts'
import { systemRandom } from '#base/random.ts'
import { completed } from '#guests/lxc/change.ts'
import { unprivilegedMap } from '#guests/lxc/idmap.ts'
import { mountNames } from '#guests/lxc/mountpoint.ts'
import { unpackTemplate } from '#guests/lxc/unpack.ts'
import { machine } from '#host/exec.ts'
import { links } from '#host/network/ip.ts'
import { mountPoints } from '#host/disks/mount.ts'
import { namesOf } from '#network/names.ts'
import { makeMounts } from '#operations/guest/container-volumes.ts'
import { btrfsDisk } from '../fixtures/btrfs-disk.ts'
import { writeTemplate } from '../fixtures/containers/template.ts'
import { type GuestWorld, guestWorld } from './qemu-world.ts'

const host = machine()

export interface ContainerWorld extends GuestWorld {
  /** The template everything is made from. */
  readonly archive: string
  readonly bridge: string
  /** A container with these options beside those every one has; the template is in its root. */
  readonly make: (vmid: number, options?: Readonly<Record<string, string>>) => Promise<Vmid>
  /** Gone, with its volumes; harmless when it was not there. */
  readonly remove: (vmid: number) => Promise<void>
  /** All a container could leave on the machine or in the node, without addresses made up for it. */
  readonly everything: () => Promise<object>
  /** Waits until its init has begun its work; before, it hears nobody. */
  readonly untilUp: (vmid: Vmid) => Promise<void>
}

/** @param withPool with a storage `pool` on a btrfs file system */
export async function containerWorld({ withPool = false } = {}): Promise<ContainerWorld> {
  const world = await guestWorld({ forgetful: true })
  await world.addStorage()
  const bridge = await world.addBridge()
  const { settings, guests, storage, store, filesOfStorage } = world
  const archive = join(settings.stateDir, 'template.tar')
  await writeTemplate(archive)
  const disk = withPool ? await btrfsDisk(256 * MiB) : undefined
  if (disk) await storage.create({ storage: 'pool', type: 'btrfs', path: disk.path, content: 'images,rootdir' })
  return {
    ...world,
    archive,
    bridge,
    async make(number, options = {}) {
      const id = world.id(number)
      await guests.reserve(id, 'test', 'lxc')
      const wish: Record<string, string> = {
        rootfs: 'local:0',
        memory: '64',
        unprivileged: '1',
        ostype: 'unmanaged',
        entrypoint: '/etc/quick',
        net0: `name=eth0,bridge=${bridge}`,
        ...options,
      }
      const mounts = await makeMounts(wish, mountNames(wish), { vmid: id, storage, host, log: () => {} })
      const whole = completed({ ...wish, ...mounts }, systemRandom)
      await guests.withVolumes(id, whole, ({ rootfs = '' }) =>
        unpackTemplate({ archive, rootfs, idMap: unprivilegedMap }),
      )
      await guests.writeConfig(id, whole, { owner: 'test' })
      return id
    },
    async remove(number) {
      const id = world.id(number)
      if (await guests.isRunning(id)) await guests.stop(id)
      await storage.freeOwnedBy(id)
      if (await guests.exists(id)) await guests.removeConfig(id)
    },
    async everything() {
      const runFiles = await readdir(settings.runDir, { recursive: true }).catch(() => [])
      const list = await guests.list()
      const found = {
        guests: list.map(({ vmid: id, kind, options, lock, state }) => ({
          id,
          kind,
          options,
          lock,
          state: state.state,
        })),
        keys: (await store.list('')).map(({ key }) => key),
        links: (await links(host)).filter(namesOf(settings.instance).isOurLink).map(({ name }) => name),
        mounts: (await mountPoints()).filter((path) => path.startsWith(settings.runDir) && !path.endsWith('/lxcfs/fs')),
        // Logs of a guest that ran stay until it goes; one lxcfs serves them all.
        runFiles: runFiles.filter((name) => /\d/.test(name) && !/\.log$|^lxcfs/.test(name)).toSorted(),
        storage: await filesOfStorage(),
        pool: disk ? await treesIn(join(disk.path, 'images')) : [],
      }
      return JSON.parse(JSON.stringify(found).replaceAll(/BC:24:11(?::[0-9A-F]{2}){3}/g, 'MAC')) as object
    },
    async untilUp(vmid) {
      const isUp = async () => {
        const cat = { command: ['/bin/cat', '/tmp/up'], timeoutMs: 5_000, outputBytes: 99 }
        return (await guests.runInside(vmid, cat)).code === 0
      }
      await waitFor(isUp, { what: 'its start', timeoutMs: 20_000, everyMs: 20 })
    },
    async [Symbol.asyncDispose]() {
      await world[Symbol.asyncDispose]()
      await disk?.[Symbol.asyncDispose]()
    },
  }
}

/** Every volume and snapshot below the folder, with what its note says. */
async function treesIn(folder: string): Promise<string[]> {
  const found: string[] = []
  for (const owner of await readdir(folder).catch(() => [])) {
    for (const name of await readdir(join(folder, owner))) {
      const path = join(folder, owner, name)
      const note = (await lstat(path)).isDirectory() ? await readFile(join(path, 'note'), 'utf8').catch(() => '') : ''
      found.push(`${owner}/${name}: ${note}`)
    }
  }
  return found.toSorted()
}
