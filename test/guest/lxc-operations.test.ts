/** Operations on containers keep the promises every operation makes: whatever fails, the world is as before or after. */
import assert from 'node:assert/strict'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite } from 'node:test'
import { waitFor } from '#base/clock.ts'
import type { Vmid } from '#base/ids.ts'
import { systemRandom } from '#base/random.ts'
import { unpackTemplate } from '#guests/lxc/unpack.ts'
import { machine } from '#host/exec.ts'
import { cloneContainer } from '#operations/guest/clone-container.ts'
import { configureContainer } from '#operations/guest/configure-container.ts'
import { createContainer } from '#operations/guest/create-container.ts'
import { destroyContainer } from '#operations/guest/destroy.ts'
import { resumeContainer, stopContainer, suspendContainer } from '#operations/guest/power.ts'
import { pushFile } from '#operations/guest/push-file.ts'
import { resizeVolume } from '#operations/guest/resize-container.ts'
import { rebootContainer, shutdownContainer } from '#operations/guest/shutdown.ts'
import { startContainer } from '#operations/guest/start.ts'
import { becomeTemplate } from '#operations/guest/template.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { releaseLocks } from '#tasks/lock.ts'
import { type ContainerWorld, containerWorld } from './container-world.ts'

const host = machine()

suite('operations on containers', { timeout: 300_000 }, () => {
  let world: ContainerWorld
  let vmid: Vmid
  before(async () => {
    world = await containerWorld()
    vmid = await world.make(100)
  })
  after(() => world[Symbol.asyncDispose]())

  const pools = { put: async () => {}, takeOut: async () => undefined, poolOf: async () => undefined }
  const own = { [Symbol.asyncDispose]: async () => {} }

  everyStepFails(
    createContainer,
    async () => {
      // What the run before made.
      await world.remove(101)
      const options = { rootfs: 'local:0', mp0: 'local:0,mp=/srv', memory: '64', hostname: 'x', unprivileged: '1' }
      return {
        params: { vmid: 101, template: world.archive, options, asTemplate: true },
        deps: { ...world, host, random: systemRandom, pools, templateTrees: { fill: unpackTemplate } },
        look: world.everything,
        ...own,
      }
    },
    { withCrashes: true },
  )

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
        look: world.everything,
        ...own,
      }
    },
    { withCrashes: false },
  )

  everyStepFails(
    destroyContainer,
    async () => {
      if (!(await world.guests.exists(world.id(102)))) await world.make(102)
      return {
        params: { vmid: 102 },
        deps: {
          ...world,
          pools,
          backupJobs: { forgetGuest: async () => {} },
          rights: { on: async () => [], forget: async () => {}, restore: async () => {} } as never,
        },
        look: world.everything,
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
      await world.untilUp(vmid)
    }
    return { params: { vmid, timeout: 3 }, deps: { guests }, look: settled, ...own }
  }
  const settled = async () => {
    await world.guests.reap(vmid)
    const isRunning = await world.guests.isRunning(vmid)
    return { isPaused: isRunning && (await world.guests.isPaused(vmid)), ...(await world.everything()) }
  }
  const place = (state: 'running' | 'stopped') => () => standing(state)
  everyStepFails(
    pushFile,
    async () => {
      const { storage, settings, guests, store } = world
      if (await guests.isRunning(vmid)) await guests.stop(vmid)
      // Whoever runs a task for real releases its locks in the end.
      await releaseLocks(store, () => true)
      const [root] = await storage.content('local', { vmid })
      const { path } = await storage.location(root?.volid ?? assert.fail('no root'))
      const [brought, spooled] = [join(path, 'root/brought'), join(settings.stateDir, 'spooled')]
      await rm(brought, { force: true })
      await writeFile(spooled, 'content')
      const look = async () => ({
        content: await readFile(brought, 'utf8').catch(() => undefined),
        names: await readdir(join(path, 'root')),
        ...(await world.everything()),
      })
      return { params: { vmid, path: '/root/brought', spooled }, deps: { guests, store }, look, ...own }
    },
    { isFinal: true, withCrashes: false },
  )
  everyStepFails(
    cloneContainer,
    async () => {
      for (const number of [103, 104]) await world.remove(number)
      await world.make(103)
      return {
        params: { vmid: 103, newid: 104, hostname: 'twin' },
        deps: { ...world, host, random: systemRandom, pools },
        look: world.everything,
        ...own,
      }
    },
    { withCrashes: false },
  )
  suite('linked to a template', () => {
    everyStepFails(
      cloneContainer,
      async () => {
        await world.remove(105)
        if (!(await world.guests.exists(world.id(106)))) await becomeTemplate(world, await world.make(106), () => {})
        return {
          params: { vmid: 106, newid: 105, hostname: 'linked', full: false },
          deps: { ...world, host, random: systemRandom, pools },
          look: world.everything,
          ...own,
        }
      },
      { withCrashes: false },
    )
  })
  everyStepFails(
    resizeVolume,
    async () => {
      await world.remove(103)
      await world.make(103, { rootfs: 'local:0.05' })
      return {
        params: { vmid: 103, disk: 'rootfs', size: '80M' },
        deps: { ...world, host },
        look: async () => {
          const [root] = await world.storage.content('local', { vmid: world.id(103) })
          return { ...(await world.everything()), hasVolume: root !== undefined }
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
