/** Operations on containers keep the promises every operation makes: whatever fails, the world is as before or after. */
import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite } from 'node:test'
import { waitFor } from '#base/clock.ts'
import type { Vmid } from '#base/ids.ts'
import { systemRandom } from '#base/random.ts'
import { machine } from '#host/exec.ts'
import { links } from '#host/ip.ts'
import { mountPoints } from '#host/mount.ts'
import { namesOf } from '#network/names.ts'
import { cloneContainer } from '#operations/guest/clone-container.ts'
import { configureContainer } from '#operations/guest/configure-container.ts'
import { createContainer } from '#operations/guest/create-container.ts'
import { destroyContainer } from '#operations/guest/destroy.ts'
import { resumeContainer, stopContainer, suspendContainer } from '#operations/guest/power.ts'
import { resizeVolume } from '#operations/guest/resize-container.ts'
import { rebootContainer, shutdownContainer } from '#operations/guest/shutdown.ts'
import { startContainer } from '#operations/guest/start.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { completed } from '#guests/lxc/change.ts'
import { unprivilegedMap } from '#guests/lxc/idmap.ts'
import { unpackTemplate } from '#guests/lxc/unpack.ts'
import { makeMounts } from '#operations/guest/container-volumes.ts'
import { writeTemplate } from '../fixtures/containers/template.ts'
import { type GuestWorld, guestWorld } from './qemu-world.ts'

const host = machine()

suite('operations on containers', { timeout: 300_000 }, () => {
  let world: GuestWorld
  let archive: string
  let bridge: string
  let vmid: Vmid
  before(async () => {
    world = await guestWorld({ forgetful: true })
    await world.addStorage()
    bridge = await world.addBridge()
    archive = join(world.settings.stateDir, 'template.tar')
    await writeTemplate(archive)
    vmid = await make(100)
  })
  after(() => world[Symbol.asyncDispose]())

  /** A container that is there, made without the operation that is tested. */
  const make = async (number: number, rootfs = 'local:0'): Promise<Vmid> => {
    const id = world.id(number)
    const { storage, guests } = world
    await guests.reserve(id, 'test', 'lxc')
    const wish = {
      rootfs,
      memory: '64',
      unprivileged: '1',
      ostype: 'unmanaged',
      entrypoint: '/etc/quick',
      net0: `name=eth0,bridge=${bridge}`,
    }
    const mounts = await makeMounts(wish, ['rootfs'], { vmid: id, storage, host, log: () => {} })
    const options = completed({ ...wish, ...mounts }, systemRandom)
    await guests.withVolumes(id, options, ({ rootfs = '' }) =>
      unpackTemplate({ archive, rootfs, idMap: unprivilegedMap }),
    )
    await guests.writeConfig(id, options, { owner: 'test' })
    return id
  }

  const pools = { put: async () => {}, takeOut: async () => undefined, poolOf: async () => undefined }
  const own = { [Symbol.asyncDispose]: async () => {} }

  /** All a container could leave on the machine or in the node. */
  const everything = async () => {
    const { settings, guests, store, filesOfStorage } = world
    const runFiles = await readdir(settings.runDir, { recursive: true }).catch(() => [])
    const list = await guests.list()
    return {
      guests: list.map(({ vmid: id, kind, options, lock, state }) => ({ id, kind, options, lock, state: state.state })),
      keys: (await store.list('')).map(({ key }) => key),
      links: (await links(host)).filter(namesOf(settings.instance).isOurLink).map(({ name }) => name),
      mounts: (await mountPoints()).filter((path) => path.startsWith(settings.runDir) && !path.endsWith('/lxcfs/fs')),
      // Logs of a guest that ran stay until it goes; one lxcfs serves them all.
      runFiles: runFiles.filter((name) => /\d/.test(name) && !/\.log$|^lxcfs/.test(name)).toSorted(),
      storage: await filesOfStorage(),
    }
  }

  everyStepFails(
    createContainer,
    async () => {
      // What the run before made.
      if (await world.guests.exists(world.id(101))) await remove(101)
      const options = { rootfs: 'local:0', mp0: 'local:0,mp=/srv', memory: '64', hostname: 'x', unprivileged: '1' }
      return {
        params: { vmid: 101, template: archive, options },
        deps: { ...world, host, random: systemRandom, pools, templateTrees: { fill: unpackTemplate } },
        look: everythingButMacs,
        ...own,
      }
    },
    { withCrashes: true },
  )

  const remove = async (number: number) => {
    const id = world.id(number)
    if (await world.guests.isRunning(id)) await world.guests.stop(id)
    await world.storage.freeOwnedBy(id)
    await world.guests.removeConfig(id)
  }
  const everythingButMacs = async () => {
    const found = await everything()
    return JSON.parse(JSON.stringify(found).replaceAll(/BC:24:11(?::[0-9A-F]{2}){3}/g, 'MAC')) as object
  }

  // The steps are those of virtual machines, whose tests let the process die as well.
  everyStepFails(
    configureContainer,
    async () => {
      const { options } = await world.guests.config(vmid, 'lxc')
      const { mp0, unused0: _, ...rest } = options
      await world.guests.writeConfig(vmid, rest)
      for (const { volid } of await world.storage.content('local', { vmid })) {
        if (!String(rest.rootfs).includes(volid)) await world.storage.free(volid)
      }
      assert.ok(mp0 === undefined || mp0.length > 0)
      if (await world.guests.isRunning(vmid)) await world.guests.stop(vmid)
      return {
        params: { vmid, change: { set: { mp0: 'local:0,mp=/srv', memory: '80' }, delete: [], revert: [] } },
        deps: { ...world, host, random: systemRandom },
        look: everything,
        ...own,
      }
    },
    { withCrashes: false },
  )

  everyStepFails(
    destroyContainer,
    async () => {
      if (!(await world.guests.exists(world.id(102)))) await make(102)
      return {
        params: { vmid: 102 },
        deps: {
          ...world,
          pools,
          backupJobs: { forgetGuest: async () => {} },
          rights: { on: async () => [], forget: async () => {}, restore: async () => {} } as never,
        },
        look: everythingButMacs,
        ...own,
      }
    },
    { withCrashes: false },
  )

  const standing = async (state: 'running' | 'stopped') => {
    const { guests } = world
    // Tasks of one second have one name here: what the run before started is not to be taken for this one's.
    if ((await guests.startedBy(vmid)) !== '' && (await guests.isRunning(vmid))) await guests.stop(vmid)
    const isRunning = await guests.isRunning(vmid)
    if (!isRunning && state === 'running') await guests.start(vmid)
    if (isRunning && state === 'stopped') await guests.stop(vmid)
    if (state === 'running') {
      if (await guests.isPaused(vmid)) await guests.resume(vmid)
      await untilUp()
    }
    return { params: { vmid, timeout: 3 }, deps: { guests }, look: settled, ...own }
  }
  /** Its init hears nobody before it has begun its work. */
  const untilUp = () =>
    waitFor(
      async () =>
        (await world.guests.runInside(vmid, { command: ['/bin/cat', '/tmp/up'], timeoutMs: 5_000, outputBytes: 99 }))
          .code === 0,
      { what: 'its start', timeoutMs: 20_000, everyMs: 20 },
    )
  const settled = async () => {
    await world.guests.reap(vmid)
    const isRunning = await world.guests.isRunning(vmid)
    return { isPaused: isRunning && (await world.guests.isPaused(vmid)), ...(await everything()) }
  }
  const place = (state: 'running' | 'stopped') => () => standing(state)
  everyStepFails(
    cloneContainer,
    async () => {
      for (const number of [103, 104]) if (await world.guests.exists(world.id(number))) await remove(number)
      await make(103)
      return {
        params: { vmid: 103, newid: 104, hostname: 'twin' },
        deps: { ...world, host, random: systemRandom, pools },
        look: everythingButMacs,
        ...own,
      }
    },
    { withCrashes: false },
  )
  everyStepFails(
    resizeVolume,
    async () => {
      if (await world.guests.exists(world.id(103))) await remove(103)
      await make(103, 'local:0.05')
      return {
        params: { vmid: 103, disk: 'rootfs', size: '80M' },
        deps: { ...world, host },
        look: async () => {
          const [root] = await world.storage.content('local', { vmid: world.id(103) })
          return { ...(await everythingButMacs()), hasVolume: root !== undefined }
        },
        ...own,
      }
    },
    // An image that has grown does not shrink again.
    { isFinal: true, withCrashes: false },
  )
  everyStepFails(startContainer, place('stopped'), { withCrashes: false })
  everyStepFails(suspendContainer, place('running'), { withCrashes: false })
  everyStepFails(resumeContainer, place('running'), { leavesNothing: true, withCrashes: false })
  everyStepFails(stopContainer, place('running'), { isFinal: true, withCrashes: false })
  // An abort leaves a container that was told to shut down on its way.
  const settling = async () => {
    const made = await standing('running')
    let looks = 0
    return {
      ...made,
      look: async () => {
        looks += 1
        const isGone = async () => !(await world.guests.isRunning(vmid))
        if (looks > 1) await waitFor(isGone, { what: 'the end of the container', timeoutMs: 500 }).catch(() => {})
        return settled()
      },
    }
  }
  everyStepFails(shutdownContainer, settling, { isFinal: true, withCrashes: false })
  everyStepFails(rebootContainer, place('running'), { leavesNothing: true, withCrashes: false })
})
