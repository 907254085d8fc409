/**
 * Power is lost at any moment, again and again, under load: what the node had promised is there whole when it
 * is back, what it had not is gone, and nothing lies about.
 */
import assert from 'node:assert/strict'
import { randomBytes, randomInt } from 'node:crypto'
import { once } from 'node:events'
import { lstat, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { connect } from 'node:tls'
import { isDeepStrictEqual } from 'node:util'
import { NodeKeys } from '#backup/node-keys.ts'
import { BackupService } from '#backup/service.ts'
import { MiB } from '#base/bytes.ts'
import { systemClock, waitFor } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { Cgroups } from '#host/cgroups/cgroup.ts'
import { machine } from '#host/exec.ts'
import { links } from '#host/network/ip.ts'
import { listNetns } from '#host/network/netns.ts'
import { isAlive } from '#host/programs/proc.ts'
import { namesOf } from '#network/names.ts'
import { openSqliteStore } from '#store/sqlite.ts'
import type { Entry } from '#store/store.ts'
import { parseUpid } from '#tasks/upid.ts'
import { type Act, type Answer, actsOn, ask, holdsTrue, type NodeActs } from '../fixtures/node-acts.ts'
import { buttonDisk } from '../fixtures/guests/power-button.ts'
import { cutPower, forgetMemory, programsOf } from '../fixtures/power-cut.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

const rounds = Number(process.env.HAKO_TEST_ROUNDS ?? 16)
const seed = Number(process.env.HAKO_TEST_SEED ?? randomInt(1_000_000))
const [guest, spare] = [100, 103]

suite('power loss', { timeout: 600_000 }, () => {
  let node: TestNode
  let acts: NodeActs
  let archive = ''
  before(async () => {
    node = await nodeUnderTest()
    const image = join(node.settings.stateDir, 'seed.raw')
    const content = buttonDisk()
    content.set(randomBytes(300_000), 100_000)
    await writeFile(image, content)
    for (const name of ['a.iso', 'b.iso']) await writeFile(join(node.settings.stateDir, name), content)
    acts = await actsOn(node, image)
    for (const vmid of [guest, spare]) await node.task(await acts.create(vmid).ask())
    await node.task(await acts.backUp(guest).ask())
    archive = (await acts.backups(guest))[0] ?? ''
    await node.task(await acts.drill(archive).ask())
  })
  after(() => node[Symbol.asyncDispose]())

  test(`${rounds} times at a random moment: all is done or undone, and nothing is left`, async (t) => {
    t.diagnostic(`seed ${seed}`)
    const tally: Record<string, number> = {}
    // A second worker may wait beside the first for a minute, and none of them survives.
    const things = { ...(await remainingThings(node)), hasOneWorkerAtMost: true, hasOneOutputAtMost: true }
    // The first time everything is loaded from disk.
    const times = []
    for (const round of [-2, -1]) {
      times.push(await undisturbed(node, await someActs(acts, archive, round, diceOf(seed))))
      await cutPower(node.settings)
      await node.restart()
    }
    const usualMs = Math.min(...times)
    for (let round = 0; round < rounds; round += 1) {
      // Each round has dice of its own, so that it can be thrown again alone.
      const dice = diceOf(seed + round)
      const where = `round ${round} of seed ${seed}`
      const asked = await someActs(acts, archive, round, dice)
      const answers = asked.map((act) => ask(act))
      await systemClock.sleep(dice(Math.ceil(usualMs)))
      await cutPower(node.settings)
      if (dice(3) === 0) await forgetMemory(node.settings)
      if (dice(4) === 0) await dieWhileStarting(node, dice(800))
      await node.restart()
      for (const [index, act] of asked.entries()) {
        const answer: Answer = (await answers[index]) ?? { kind: 'none' }
        const outcome = await holdsTrue(node, act, answer).catch(async (error: unknown) => {
          throw new Error(`${where}: ${act.name} (${JSON.stringify(answer)})\n${await taskFiles(node, answer)}`, {
            cause: error,
          })
        })
        const key = `${answer.kind === 'none' ? 'unanswered' : 'answered'}, ${outcome}`
        tally[key] = (tally[key] ?? 0) + 1
      }
      // The node may be asking `ip` something at this very moment.
      const isAsBefore = async () => isDeepStrictEqual(await remainingThings(node), things)
      await waitFor(isAsBefore, { what: 'things as before', timeoutMs: 10_000 }).catch(() => {})
      assert.deepEqual({ where, ...(await remainingThings(node)) }, { where, ...things })
      await everyBackupVerifies(node)
    }
    t.diagnostic(`${JSON.stringify(tally)} within ${usualMs.toFixed(0)} ms`)
    assert.ok((tally['answered, done'] ?? 0) > 0 && (tally['answered, undone'] ?? 0) > 0, JSON.stringify(tally))
  })

  test('a backup that was cut off leaves no trace and gives its space back at once', async () => {
    const datastore = join(node.settings.stateDir, 'storage/local/datastore')
    const here = `/nodes/${node.settings.node}`
    const fresh = join(node.settings.stateDir, 'fresh.raw')
    await writeFile(fresh, randomBytes(8 * MiB))
    const disk = { scsi0: `local:0,import-from=${fresh},format=raw` }
    await node.task(await node.api('POST', `${here}/qemu`, { vmid: '301', ...disk }))
    const before = await bytesBelow(datastore)
    // A second per MiB, so that there is time to be cut off in.
    const upid = await node.api('POST', `${here}/vzdump`, { vmid: '301', storage: 'local', bwlimit: '1024' })
    const isWriting = async () => (await bytesBelow(datastore)) > before + MiB
    await waitFor(isWriting, { what: 'the first mebibyte of the backup', timeoutMs: 60_000 })
    await cutPower(node.settings)
    await node.restart()
    await node.task(upid, /^interrupted: undone$/)
    assert.deepEqual(await acts.backups(301), [])
    assert.equal(await bytesBelow(datastore), before)
  })

  test('tasks go on when only the daemon dies, and the one that returns sees them end', async () => {
    const upids: string[] = []
    for (const act of [acts.drill(archive), acts.backUp(spare), acts.create(300)]) upids.push(String(await act.ask()))
    const journals = upids.map((upid) => join(node.settings.stateDir, 'tasks', upid, 'journal'))
    const haveBegun = async () =>
      (await Promise.all(journals.map((path) => readFile(path, 'utf8')))).every((text) => text.includes('"begin"'))
    await waitFor(haveBegun, { what: 'the beginning of all tasks', timeoutMs: 60_000, everyMs: 2 })
    await node.kill9()
    const parts = upids.map(parseUpid)
    const alive = await Promise.all(parts.map(({ pid, pstart }) => isAlive(pid, pstart)))
    assert.ok(alive.includes(true), 'all had ended before the daemon died')
    await node.restart()
    for (const upid of upids) await node.task(upid)
    await acts.create(300).isDone()
  })

  test('what a guest writes is recorded on while no daemon runs', async () => {
    const qemu = `/nodes/${node.settings.node}/qemu/${spare}`
    await node.task(await node.api('POST', `${qemu}/status/start`))
    await node.task(String(await acts.backUp(spare).ask()))
    await node.kill9()
    await node.restart()
    const { log } = await node.task(String(await acts.backUp(spare).ask()))
    assert.match(log, /scsi0: dirty bitmap is OK, since backup vm\//)
    await node.task(await node.api('POST', `${qemu}/status/stop`))
  })

  test('a node that loses power while it starts for the first time is made whole by the next start', async (t) => {
    const dice = diceOf(seed)
    let upMs = 0
    for (let round = 0; round < 6; round += 1) {
      await cutPower(node.settings)
      await forgetMemory(node.settings)
      for (const name of await readdir(node.settings.stateDir)) {
        await rm(join(node.settings.stateDir, name), { recursive: true })
      }
      // The first round only looks how long it takes.
      if (round > 0) await dieWhileStarting(node, dice(upMs))
      const from = systemClock.monotonic()
      await node.restart()
      if (round === 0) upMs = Math.ceil(systemClock.monotonic() - from)
      const storages = (await node.api('GET', '/storage')) as { storage: string }[]
      assert.deepEqual(
        storages.map(({ storage }) => storage),
        ['local'],
      )
      await handshake(node.settings.apiPort)
    }
    t.diagnostic(`seed ${seed}, within ${upMs} ms`)
  })
})

/** Several at once, none in another's way: what they change is not looked at by the others. */
async function someActs(acts: NodeActs, archive: string, round: number, dice: Dice): Promise<Act[]> {
  const guests = await acts.guests()
  const isos = await acts.isos()
  const drives = await acts.drives(spare)
  const backups = (await acts.backups(guest)).filter((volid) => volid !== archive)
  const oldest = backups[0]
  const all = [
    guests.includes(201) ? acts.destroy(201) : acts.create(201),
    guests.includes(202) ? acts.destroy(202) : acts.restore(202, archive),
    isos.includes('local:iso/a.iso') ? acts.deleteIso('a.iso') : acts.upload('a.iso'),
    isos.includes('local:iso/b.iso') ? acts.deleteIso('b.iso') : acts.upload('b.iso'),
    acts.rename(guest, `round-${round}`),
    drives.includes('scsi1') ? acts.removeDisk(spare, 'scsi1') : acts.addDisk(spare, 'scsi1'),
    acts.drill(archive),
    ...(backups.length > 5 && oldest !== undefined ? [acts.deleteBackup(oldest)] : [acts.backUp(guest)]),
    acts.start(guest),
  ]
  const chosen: Act[] = []
  while (chosen.length < 5) chosen.push(...all.splice(dice(all.length), 1))
  for (const act of chosen) await act.prepare?.()
  return chosen
}

/** How long they take on this machine when nothing happens. */
async function undisturbed(node: TestNode, acts: readonly Act[]): Promise<number> {
  const from = systemClock.monotonic()
  const answers = await Promise.all(acts.map(ask))
  for (const answer of answers) if (answer.kind === 'task') await node.task(answer.upid)
  return systemClock.monotonic() - from
}

/** Starts the node and cuts its power again before it is up, or just then. */
async function dieWhileStarting(node: TestNode, afterMs: number): Promise<void> {
  const restarting = node.restart().catch(() => {})
  await systemClock.sleep(afterMs)
  await cutPower(node.settings)
  void restarting
}

/** Key and certificate are there and belong together. */
async function handshake(port: number): Promise<void> {
  const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false })
  await once(socket, 'secureConnect')
  socket.destroy()
}

/** What must be the same after every round: programs, network, groups, files of work in progress, locks. */
async function remainingThings({ settings }: TestNode) {
  const { isOurLink, isOurNetns } = namesOf(settings.instance)
  const host = machine()
  const cgroups = await Cgroups.detect()
  await using store = await openSqliteStore(join(settings.stateDir, 'store.sqlite'))
  const entries = await store.list('')
  const isThere = (vmid: number) => entries.some(({ key }) => key === `guests/qemu/${vmid}`)
  // A tap's name stays with its guest: the next start uses it again.
  const isOwned = ({ value }: Entry) => isThere(Number(Object(value).vmid))
  const files = await readdir(settings.stateDir, { recursive: true })
  const runFiles = await readdir(settings.runDir, { recursive: true })
  const programs = await programsOf(settings)
  return {
    // The worker that waits for the next task may be there; a second one would be somebody's who died.
    programs: programs.filter((name) => name !== 'worker.ts'),
    hasOneWorkerAtMost: programs.filter((name) => name === 'worker.ts').length <= 1,
    links: (await links(host)).filter(isOurLink).map(({ name }) => name),
    namespaces: (await listNetns(host)).filter(isOurNetns),
    groups: await cgroups.list(`hakobune-${settings.instance}`),
    locks: entries.filter(({ key }) => /^(locks|network\/isolated)\//.test(key)),
    tapsOfNobody: entries.filter((entry) => entry.key.startsWith('network/taps/') && !isOwned(entry)),
    unfinished: files.filter((name) => /(^|\/)\.(?!output-)[^/]*$|^upload\/incoming\/./.test(name)),
    // Of the worker that waits for the next task; those of workers that died are gone.
    hasOneOutputAtMost: files.filter((name) => name.startsWith('tasks/.output-')).length <= 1,
    running: runFiles.filter((name) => !/^guests(\/\d+(\/[^/]*\.log)?)?$/.test(name)).toSorted(),
  }
}

async function everyBackupVerifies({ settings }: TestNode): Promise<void> {
  const needs = { clock: systemClock, random: systemRandom, log: silentLog }
  const path = join(settings.stateDir, 'storage/local/datastore')
  const keys = new NodeKeys({ settings, ...needs })
  const backup = new BackupService({ ...needs, keys, storage: { datastorePath: async () => path } })
  for (const { volid, damage } of await backup.list({ storage: 'local' })) {
    assert.equal(damage, undefined)
    await backup.verify(volid)
  }
  await backup.collect('local')
  for (const folder of ['tmp', 'leases', 'condemned']) assert.deepEqual(await readdir(join(path, folder)), [], folder)
}

async function bytesBelow(folder: string): Promise<number> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  const sizes = entries.map(async (entry) => {
    const facts = await lstat(join(entry.parentPath, entry.name)).catch(() => undefined)
    return facts?.isFile() ? facts.size : 0
  })
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0)
}

async function taskFiles({ settings }: TestNode, answer: Answer): Promise<string> {
  if (answer.kind !== 'task') return ''
  const directory = join(settings.stateDir, 'tasks', answer.upid)
  const texts = await Promise.all(
    ['journal', 'log', 'output'].map((name) => readFile(join(directory, name), 'utf8').catch(() => '')),
  )
  return texts.join('\n')
}

type Dice = (below: number) => number

/** Pseudo-random whole numbers from a seed (mulberry32). */
function diceOf(start: number): Dice {
  let state = start | 0
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296) * below)
  }
}
