import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, stat, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { createLog } from '#base/log.ts'
import { AccessLog } from './access-log.ts'

async function place(t: TestContext, below = '') {
  const directory = await mkdtemp(join(tmpdir(), 'hako-access-log-'))
  t.after(() => rm(directory, { recursive: true }))
  const said: string[] = []
  const path = join(directory, below, 'access.log')
  const open = () => new AccessLog({ path, clock: systemClock, log: createLog((line) => said.push(line)) })
  return { path, said, open }
}

const call = {
  method: 'GET',
  path: '/nodes/one/qemu/100/config',
  endpoint: '/nodes/{node}/qemu/{vmid}/config',
  status: 200,
  who: { user: 'ci@pve', token: 'ci@pve!build', authId: 'ci@pve!build' },
  remoteAddress: '192.0.2.7',
}

const lines = async (path: string) =>
  (await readFile(path, 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)

test('a call is written with who made it, from where, and how it ended', async (t) => {
  const { path, open } = await place(t)
  {
    await using log = open()
    log.observe()(call)
    log.observe()({ ...call, who: undefined, endpoint: undefined, status: 401, remoteAddress: '' })
  }
  const [first, second] = await lines(path)
  const { time, ms, ...facts } = first ?? {}
  assert.ok(Math.abs(Date.now() - Date.parse(String(time))) < 60_000)
  assert.equal(typeof ms, 'number')
  const { who, remoteAddress, ...told } = call
  assert.deepEqual(facts, { ...told, user: who.authId, from: remoteAddress })
  assert.deepEqual(Object.keys(second ?? {}), ['time', 'method', 'path', 'status', 'ms'])
  assert.equal((await stat(path)).mode & 0o777, 0o600)
})

test('a full log is kept once, and the next lines begin a new one', async (t) => {
  const { path, open } = await place(t)
  await using log = open()
  log.observe()(call)
  await log.flush()
  await truncate(path, 32 << 20)
  await using again = open()
  again.observe()(call)
  await again.flush()
  assert.equal((await stat(`${path}.1`)).size, 32 << 20)
  assert.equal((await lines(path)).length, 1)
})

test('a log that cannot be written is said, and no call fails', async (t) => {
  const { said, open } = await place(t, 'nowhere')
  await using log = open()
  log.observe()(call)
  await log.flush()
  assert.match(said.join('\n'), /the access log cannot be written/)
})
