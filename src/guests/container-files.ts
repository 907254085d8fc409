/**
 * Files of a container: read, written and listed as its root would, one by one or whole folders as archives.
 *
 * Of one that runs, what is seen is what its processes see, memory file systems included. Of one that is off it is its
 * volumes, when they are folders; an image would have to be mounted, and then no start could be let happen meanwhile.
 * Archives are packed and unpacked by the container's own tar: a folder is walked by somebody inside, who can be led
 * nowhere else.
 */
import { closeSync, constants, openSync, readlinkSync } from 'node:fs'
import { posix } from 'node:path'
import type { Readable } from 'node:stream'
import { Fault, invalid } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { fed } from '#host/programs/feed.ts'
import {
  type FileFacts,
  type InsidePlace,
  listInside,
  readInside,
  writeInside,
  type WrittenFile,
} from '#host/lxc/inside/inside.ts'
import { inNetns } from '#host/network/netns.ts'
import { openWithin } from '#host/files/open-within.ts'
import { printed } from '#host/programs/printed.ts'
import type { Options } from './config.ts'
import type { GuestDocuments } from './documents.ts'
import type { LxcDriver } from './lxc/driver.ts'
import { idMapOf } from './lxc/idmap.ts'
import { mountsOf, wishOf } from './lxc/mountpoint.ts'
import type { GuestStorage } from './needs.ts'

export interface ContainerFilesNeeds {
  readonly documents: GuestDocuments
  readonly lxc: LxcDriver
  readonly storage: Pick<GuestStorage, 'location'>
}

export const filesListed = 10_000
const longestPath = 4_000

export class ContainerFiles {
  readonly #needs: ContainerFilesNeeds

  constructor(needs: ContainerFilesNeeds) {
    this.#needs = needs
  }

  /** @throws Fault `missing`, `conflict` for what is no plain file, `denied` for what root inside may not read */
  read(
    vmid: Vmid,
    path: string,
    signal?: AbortSignal,
  ): Promise<{ readonly facts: FileFacts; readonly bytes: Readable }> {
    return this.#at(vmid, path, (place, below) => readInside(place, below, signal))
  }

  list(vmid: Vmid, path: string, signal?: AbortSignal) {
    return this.#at(vmid, path, (place, below) => listInside(place, { path: below, most: filesListed }, signal))
  }

  /** The old file or the new one, whatever happens. */
  write(vmid: Vmid, file: WrittenFile, bytes: Readable, signal?: AbortSignal): Promise<Omit<FileFacts, 'name'>> {
    return this.#at(vmid, file.path, (place, path) => writeInside(place, { ...file, path }, bytes, signal))
  }

  /** A file or folder as a tar archive. @throws Fault `conflict` when it does not run, `missing` */
  async pack(vmid: Vmid, path: string, signal?: AbortSignal): Promise<Readable> {
    const place = soundPath(path)
    // Their tars differ in what they print of what is not there.
    await this.list(vmid, place, signal)
    const tar = ['tar', '-c', '-f', '-', '-C', posix.dirname(place), posix.basename(place) || '.']
    return printed(await this.#attached(vmid, tar), { signal, refusal: 'the container’s tar did not pack it' })
  }

  /** Unpacks a tar archive into a folder. What was unpacked stays when it breaks off. */
  async unpack(vmid: Vmid, path: string, bytes: AsyncIterable<Uint8Array>, signal?: AbortSignal): Promise<void> {
    const argv = await this.#attached(vmid, ['tar', '-x', '-f', '-', '-C', soundPath(path)])
    const { code, said } = await fed(argv, bytes, { signal })
    if (code === 0) return
    const [reason = 'it was ended'] = said
    throw new Fault('failed', `the container’s tar did not unpack it: ${reason.slice(0, 300)}`)
  }

  async #attached(vmid: Vmid, command: readonly string[]) {
    const { lxc, documents } = this.#needs
    await documents.get(vmid, 'lxc')
    const { options, netns } = await lxc.requireRunning(vmid)
    if (await lxc.isFrozen(vmid)) {
      throw new Fault('conflict', `CT ${vmid} is suspended`, { remedy: `Let it go on: hako ct resume ${vmid}.` })
    }
    // Its monitor listens at a socket whose name means nothing in other networks.
    return inNetns(netns === '' ? undefined : netns, lxc.attachArgv(vmid, command, options))
  }

  async #at<T>(vmid: Vmid, path: string, act: (place: InsidePlace, path: string) => Promise<T>): Promise<T> {
    const sound = soundPath(path)
    const { options } = await this.#needs.documents.get(vmid, 'lxc')
    const running = await this.#needs.lxc.running(vmid)
    if (running) return this.#inRunning(vmid, running.options, (place) => act(place, sound))
    return this.#inStopped(vmid, options, sound, act)
  }

  async #inRunning<T>(vmid: Vmid, options: Options, act: (place: InsidePlace) => Promise<T>): Promise<T> {
    const init = await this.#needs.lxc.initPid(vmid)
    const open: number[] = []
    try {
      open.push(openSync(`/proc/${init}/root`, constants.O_RDONLY | constants.O_DIRECTORY))
      open.push(openSync(`/proc/${init}/ns/user`, 'r'))
      const [root = -1, users = -1] = open
      // Whoever has that number by now is not meant.
      const isGone = (await this.#needs.lxc.initPid(vmid)) !== init
      const isOurs = idMapOf(options) !== undefined && namespaceAt(users) === namespaceAt('self')
      if (isGone || isOurs) throw new Fault('conflict', `CT ${vmid} not running`)
      return await act(idMapOf(options) === undefined ? { root } : { root, users })
    } finally {
      for (const fd of open) closeSync(fd)
    }
  }

  /** The volume the path leads into, as root of all there is. */
  async #inStopped<T>(
    vmid: Vmid,
    options: Options,
    path: string,
    act: (place: InsidePlace, path: string) => Promise<T>,
  ): Promise<T> {
    const mounts = mountsOf(options).map((mount) => ({ mount, at: posix.normalize(mount.path).replace(/\/$/, '') }))
    const within = (at: string, one: string) => one === at || one.startsWith(`${at}/`)
    const [found] = mounts.filter(({ at }) => within(at, path)).toSorted((a, b) => b.at.length - a.at.length)
    if (!found) throw new Fault('conflict', `CT ${vmid} has no root`)
    const { mount, at } = found
    const folder = await this.#folderOf(vmid, mount)
    const root = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY)
    const below = path.slice(at.length) || '/'
    try {
      using real = openWithin(root, posix.dirname(below))
      // The folder a mount point hides is not what is meant.
      const place = real ? `${at}${readlinkSync(real.path).slice(readlinkSync(`/proc/self/fd/${root}`).length)}` : path
      const hidden = mounts.find((other) => other.at.length > at.length && within(other.at, place))
      if (hidden) {
        throw new Fault(
          'conflict',
          `'${path}' leads through a link into ${hidden.mount.name} of CT ${vmid}, which is off`,
          {
            remedy: `Name the place itself, below ${hidden.at}, or start the container.`,
          },
        )
      }
      const users = idMapOf(options)
      return await act(users === undefined ? { root } : { root, users }, below)
    } finally {
      closeSync(root)
    }
  }

  async #folderOf(vmid: Vmid, mount: ReturnType<typeof mountsOf>[number]): Promise<string> {
    const wish = wishOf(mount)
    if (wish.kind === 'path') return wish.path
    if (wish.kind === 'volume') {
      const { path, format } = await this.#needs.storage.location(wish.volid)
      if (format === 'subvol') return path
    }
    throw new Fault('conflict', `CT ${vmid} is off, and its ${mount.name} is an image`, {
      remedy: `Its files can be reached while it runs: hako ct start ${vmid}.`,
    })
  }
}

function namespaceAt(of: number | 'self'): string {
  return readlinkSync(of === 'self' ? '/proc/self/ns/user' : `/proc/self/fd/${of}`)
}

/** @throws Fault `invalid` */
function soundPath(path: string): string {
  const isSound = path.startsWith('/') && path.length <= longestPath && !path.includes('\0')
  if (!isSound) throw invalid({ path: 'a path inside the container begins with / and is not too long' })
  if (path.split('/').includes('..')) throw invalid({ path: "'..' leads nowhere for sure: name the place itself" })
  return path.replaceAll(/\/+/g, '/').replace(/(.)\/$/, '$1')
}
