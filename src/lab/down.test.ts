/** Taking a node off a machine, on the machine: real links, tables, mounts, groups and processes. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { systemClock, waitFor } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { Cgroups } from '#host/cgroups/cgroup.ts'
import { machine } from '#host/exec.ts'
import { deleteLink } from '#host/network/ip.ts'
import { NetworkService } from '#network/service.ts'
import { openSqliteStore } from '#store/sqlite.ts'
import { settingsFrom, type Settings } from '#settings.ts'
import { forwardingButForOthers } from '../../test/forwarding.ts'
import { freshInstance } from '../../test/own-names.ts'
import { type Remains, remains, takeDown } from './down.ts'

const host = machine()
const nothing: Remains = {
  processes: [],
  links: [],
  namespaces: [],
  tables: [],
  mounts: [],
  cgroups: [],
  directories: [],
}

async function someNode(t: TestContext): Promise<Settings> {
  const instance = freshInstance('d')
  const place = await mkdtemp(join(tmpdir(), 'hako-down-'))
  const settings = settingsFrom({
    HAKO_INSTANCE: instance,
    HAKO_STATE_DIR: join(place, 'state'),
    HAKO_RUN_DIR: join(place, 'run'),
    HAKO_CACHE_DIR: join(place, 'cache'),
  })
  t.after(async () => {
    await takeDown({ settings, host })
    await rm(place, { recursive: true, force: true })
  })
  for (const directory of [settings.stateDir, settings.runDir, settings.cacheDir]) await mkdir(directory)
  return settings
}

/** One of everything a node makes. @returns the pid of something that runs in its group */
async function furnish(settings: Settings): Promise<number> {
  {
    await using store = await openSqliteStore(join(settings.stateDir, 'store.sqlite'))
    const network = new NetworkService({
      settings,
      host,
      store,
      clock: systemClock,
      random: systemRandom,
      log: silentLog,
    })
    await network.ensureBridge({ name: `hk${settings.instance}0`, cidr: await network.freeSubnet(), nat: true })
    await network.createIsolated('drill')
  }
  await mkdir(join(settings.stateDir, 'mounted'))
  const image = join(settings.stateDir, 'image')
  await writeFile(image, new Uint8Array(MiB))
  await host.run(['mkfs.ext4', '-q', image])
  await host.run(['mount', '-o', 'loop', image, join(settings.stateDir, 'mounted')])
  const sleeper = spawn('sleep', ['600'], { stdio: 'ignore', detached: true })
  sleeper.unref()
  const pid = sleeper.pid ?? 0
  const cgroups = await Cgroups.detect()
  await cgroups.createGroup(`hakobune-${settings.instance}/qemu-100`)
  await cgroups.addProcess(`hakobune-${settings.instance}/qemu-100`, pid)
  return pid
}

const runs = (pid: number) => existsSync(`/proc/${pid}/exe`)

test('everything a node made goes, a neighbour keeps everything', async (t) => {
  const [settings, neighbour] = [await someNode(t), await someNode(t)]
  const pid = await furnish(settings)
  const theirs = await furnish(neighbour)
  const before = await remains({ settings: neighbour, host })
  const found = await remains({ settings, host })
  for (const [kind, things] of Object.entries(found)) assert.ok(things.length > 0, `${kind} is there to be removed`)

  const removed = await takeDown({ settings, host })

  assert.deepEqual(removed, found)
  assert.deepEqual(await remains({ settings, host }), nothing)
  assert.equal(runs(pid), false)
  assert.ok(existsSync(settings.cacheDir), 'a cache that may be shared stays unless asked for')
  assert.deepEqual(await remains({ settings: neighbour, host }), before)
  assert.equal(runs(theirs), true)
})

test('a store that is damaged keeps nothing on the machine, and forwarding gets its old value back', async (t) => {
  const settings = await someNode(t)
  const before = await forwardingButForOthers(settings.instance)
  await furnish(settings)
  await writeFile(join(settings.stateDir, 'store.sqlite'), 'this is no database, it is a sad story')
  await takeDown({ settings, host })
  assert.deepEqual(await remains({ settings, host }), nothing)
  assert.equal(await forwardingButForOthers(settings.instance), before)
})

test('state that vanished keeps nothing on the machine either, and twice is as good as once', async (t) => {
  const settings = await someNode(t)
  await furnish(settings)
  await host.run(['umount', join(settings.stateDir, 'mounted')])
  await rm(settings.stateDir, { recursive: true })
  await takeDown({ settings, host, alsoShared: true })
  assert.equal(existsSync(settings.cacheDir), false)
  assert.deepEqual(await takeDown({ settings, host, alsoShared: true }), nothing)
})

test('programs of the node are known by their environment, and end', async (t) => {
  const settings = await someNode(t)
  const place = join(settings.stateDir, 'src')
  await mkdir(place)
  await writeFile(join(place, 'main.ts'), 'setInterval(() => {}, 1000)\n')
  const start = (runDir: string) =>
    spawn(process.execPath, [join(place, 'main.ts')], { stdio: 'ignore', env: { HAKO_RUN_DIR: runDir } })
  const [ours, other] = [start(settings.runDir), start('/run/somebody-else')]
  t.after(() => other.kill('SIGKILL'))
  await waitFor(async () => (await remains({ settings, host })).processes.length > 0, {
    what: 'the program',
    timeoutMs: 60_000,
  })
  await takeDown({ settings, host })
  await waitFor(() => ours.signalCode !== null || ours.exitCode !== null, { what: 'its end', timeoutMs: 60_000 })
  assert.equal(other.exitCode, null)
  assert.equal(other.signalCode, null)
})

test('a link with a note of somebody else stays, whatever its name', async (t) => {
  const settings = await someNode(t)
  const name = `hk${settings.instance}0`
  await host.run(['ip', 'link', 'add', 'name', name, 'type', 'bridge'])
  t.after(() => deleteLink(host, name))
  await host.run(['ip', 'link', 'set', 'dev', name, 'alias', 'mine, hands off'])
  await takeDown({ settings, host })
  assert.ok(existsSync(`/sys/class/net/${name}`))
})
