/** What the system of a container says of itself, and what follows from it. */
import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { machine } from '#host/exec.ts'
import { whyContainerIsDead } from './console.ts'
import { initQuestion, judgeInit, settledMs } from './init.ts'

const verdict = (answer: string, sinceMs = 0) => judgeInit(answer, 'init', sinceMs)

test('systemd is up when it says so, degraded included, which is told', () => {
  assert.deepEqual(verdict('init=systemd\nsystemd=running\nfailed=\n'), { state: 'up', found: 'systemd: running' })
  assert.deepEqual(verdict('systemd=degraded\nfailed=web.service db.service \n'), {
    state: 'up',
    found: 'systemd: degraded, failed: web.service db.service',
  })
  assert.deepEqual(verdict('systemd=starting'), { state: 'waiting', last: 'systemd: starting' })
  assert.deepEqual(verdict('systemd='), { state: 'waiting', last: 'systemd: does not answer yet' })
  for (const state of ['maintenance', 'stopping']) assert.equal(verdict(`systemd=${state}`).state, 'dead')
})

test('other systems are up when their last runlevel is, or somebody may log in', () => {
  assert.equal(verdict('openrc=default').state, 'up')
  for (const early of ['', 'sysinit', 'boot']) assert.equal(verdict(`openrc=${early}`).state, 'waiting')
  assert.deepEqual(verdict('init=init\ngetty=getty'), { state: 'up', found: "'getty' waits for a login" })
  assert.equal(verdict('init=init\ngetty=getty\nstarting=rc').state, 'waiting')
})

test('what says nothing of itself is up when it goes on running', () => {
  assert.equal(verdict('init=nginx').state, 'waiting')
  assert.deepEqual(verdict('init=nginx', settledMs), {
    state: 'up',
    found: "its first program 'init' runs, and says no more of itself",
  })
  assert.deepEqual(verdict('', settledMs), {
    state: 'up',
    found: "its first program 'init' runs, and nothing inside could be asked",
  })
})

test('nothing that will say more is taken to be up because it runs', () => {
  for (const init of ['systemd', 'lxc-start']) {
    assert.equal(judgeInit('init=systemd\n', init, 10 * settledMs).state, 'waiting')
  }
})

test('what a guest says becomes one line, however it is written', () => {
  const said = verdict(`systemd=degraded\nfailed=${'\u001b[2J\t'.repeat(9)}a.service${'x'.repeat(9_000)}`)
  assert.ok(said.state === 'up' && said.found.length < 300 && /^[\x20-\x7e]+$/.test(said.found), JSON.stringify(said))
})

test('the question is understood by a shell without any program beside it', async (t) => {
  const place = await fakeSystem(t, { 'run/openrc/softlevel': 'default\n', 'proc/1/comm': 'init\n' })
  assert.equal(await asked(place), 'init=init\nopenrc=default\n')
  await writeFile(join(place, 'run/openrc/rc.starting'), '')
  assert.equal(await asked(place), 'init=init\nopenrc=\n')
  const other = await fakeSystem(t, { 'proc/1/comm': 'init\n', 'proc/7/comm': 'getty\n', 'proc/8/comm': 'rcS\n' })
  assert.equal(await asked(other), 'init=init\ngetty=getty\nstarting=rcS\n')
})

test('a console that says the init gave up is believed at once', () => {
  assert.equal(whyContainerIsDead('[  OK  ] Reached target network.target\n'), undefined)
  assert.match(
    whyContainerIsDead('[!!!!!!] Failed to mount API filesystems.\nExiting PID 1...\n') ?? '',
    /^its init gave up \('\[!!!!!!\] Failed to mount API/,
  )
  assert.match(whyContainerIsDead('You are in emergency mode. After') ?? '', /emergency mode/)
})

async function fakeSystem(t: TestContext, files: Readonly<Record<string, string>>): Promise<string> {
  const place = await mkdtemp(join(tmpdir(), 'hako-init-'))
  t.after(() => rm(place, { recursive: true }))
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(place, name)), { recursive: true })
    await writeFile(join(place, name), text)
  }
  return place
}

/** In a shell that has nothing but itself. */
async function asked(place: string): Promise<string> {
  const script = initQuestion.replaceAll(/\/(?=(?:proc|run)\/)/g, `${place}/`)
  const { stdout } = await machine().run(['/bin/sh', '-c', script], { env: { PATH: '/nowhere' } })
  return stdout
}
