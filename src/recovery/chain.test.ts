/** Many processes sign at once, are killed, and are tampered with: the chain is one, or it is said where it is not. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { evidenceIn } from './chain.ts'
import { RecoveryService } from './service.ts'

const service = JSON.stringify(join(import.meta.dirname, 'service.ts'))
/** Signs again and again, and says which is signed. */
const signer = `
  import { RecoveryService } from ${service}
  const [stateDir, name, count] = process.argv.slice(1)
  const recovery = new RecoveryService({ stateDir })
  for (let at = 0; at < Number(count); at += 1) {
    const id = '20260101T0000' + String(at % 60).padStart(2, '0') + 'Z-' + name + '-' + at
    await recovery.keep({ id, node: 'lab', ended: new Date().toISOString() }, new Map([['console.txt', 'READY']]))
    console.log(id)
  }`

async function place() {
  const stateDir = await mkdtemp(join(tmpdir(), 'hako-chain-'))
  const recovery = new RecoveryService({ stateDir })
  const folder = join(stateDir, 'evidence')
  return {
    stateDir,
    recovery,
    folder,
    keep: (id: string) => recovery.keep({ id, node: 'lab', ended: new Date().toISOString() }, new Map()),
    complaints: async () => (await recovery.verifyChain()).complaints,
    [Symbol.asyncDispose]: () => rm(stateDir, { recursive: true, force: true }),
  }
}

function signing(stateDir: string, name: string, count: number): ChildProcess {
  const words = ['--disable-warning=ExperimentalWarning', '--input-type=module', '--eval', signer, '--']
  return spawn(process.execPath, [...words, stateDir, name, String(count)], { stdio: ['ignore', 'pipe', 'inherit'] })
}

test('what many processes sign at once is one unbroken chain', async () => {
  await using here = await place()
  const all = ['a', 'b', 'c', 'd', 'e', 'f'].map((name) => signing(here.stateDir, name, 5))
  for (const ended of all.map((one) => once(one, 'exit'))) assert.deepEqual(await ended, [0, null])
  assert.deepEqual(await here.recovery.verifyChain(), { ok: true, complaints: [], evidence: 30 })
})

test('what a process that was killed left beside the chain goes with its evidence, the chain stays', async () => {
  await using here = await place()
  await here.keep('20260101T000000Z-vm-100')
  const before = await readdir(here.folder)
  await writeFile(join(here.folder, '.185463a1-d2dd-4d16-98e0-7012c7c1a089.tmp'), '{"newest":')
  await writeFile(join(here.folder, '.20260101T000001Z-vm-100.tmp'), '')
  await here.recovery.discardUnfinished('20260101T000001Z-vm-100')
  assert.deepEqual(await readdir(here.folder), before)
  assert.deepEqual(await here.recovery.verifyChain(), { ok: true, complaints: [], evidence: 1 })
})

test('processes that are killed while they sign leave a whole chain, and whoever signs next goes on', async () => {
  await using here = await place()
  for (const round of ['a', 'b', 'c']) {
    const all = ['p', 'q'].map((name) => signing(here.stateDir, round + name, 1_000))
    const ended = all.map((one) => once(one, 'exit'))
    // After so many lines, wherever in the next one it is by then.
    const lines = createInterface({ input: all[0]?.stdout ?? process.stdin })
    let seen = 0
    for await (const _ of lines) if ((seen += 1) >= 4) break
    for (const one of all) one.kill('SIGKILL')
    await Promise.all(ended)
    assert.deepEqual(await here.complaints(), [])
  }
  const before = (await evidenceIn(here.folder)).length
  assert.ok(before >= 12)
  await here.keep('20260201T000000Z-after')
  assert.deepEqual(await here.recovery.verifyChain(), { ok: true, complaints: [], evidence: before + 1 })
})

test('a writer that died before or after its evidence got its name is gone on from where it came to', async () => {
  await using here = await place()
  await here.keep('20260101T000001Z-one')
  const state = join(here.folder, '.newest.json')
  const { newest } = JSON.parse(await readFile(state, 'utf8')) as { newest: object }
  await here.keep('20260101T000002Z-two')
  const { newest: second } = JSON.parse(await readFile(state, 'utf8')) as { newest: object }
  // It had its name, and nobody wrote that down.
  await writeFile(state, JSON.stringify({ newest, coming: second }))
  await here.keep('20260101T000003Z-three')
  assert.deepEqual(await here.complaints(), [])
  // It never had its name.
  const { newest: third } = JSON.parse(await readFile(state, 'utf8')) as { newest: object }
  await writeFile(state, JSON.stringify({ newest: third, coming: { drill: '20260101T000004Z-four', sha256: '0' } }))
  await here.keep('20260101T000005Z-five')
  await writeFile(state, 'no JSON')
  await here.keep('20260101T000006Z-six')
  assert.deepEqual(await here.recovery.verifyChain(), { ok: true, complaints: [], evidence: 5 })
})

test('evidence that was taken out, from the middle or the end, put beside or exchanged is found', async () => {
  await using here = await place()
  const ids = ['1', '2', '3', '4'].map((at) => `20260101T00000${at}Z-vm-100`)
  const [first = '', second = '', third = '', fourth = ''] = ids
  for (const id of ids) await here.keep(id)
  assert.deepEqual(await here.complaints(), [])
  const [kept, aside] = [join(here.folder, second), join(here.stateDir, 'aside')]
  await rename(kept, aside)
  assert.deepEqual(await here.complaints(), [`${third}: names ${second} as the one before, which is missing`])
  await rename(aside, kept)

  await rename(join(here.folder, fourth), aside)
  assert.deepEqual(await here.complaints(), [`${fourth}: was signed last, and is missing`])
  await rename(aside, join(here.folder, fourth))

  await cp(kept, join(here.folder, '20260101T000009Z-vm-100'), { recursive: true })
  assert.deepEqual(await here.complaints(), [`20260101T000009Z-vm-100: was signed as ${second}`])
  await rm(join(here.folder, '20260101T000009Z-vm-100'), { recursive: true })

  // Signed by the same node, of the same name, in another folder: as after a copy was signed on.
  await using other = await place()
  await cp(join(here.stateDir, 'keys'), join(other.stateDir, 'keys'), { recursive: true })
  await cp(join(here.folder, first), join(other.folder, first), { recursive: true })
  await other.keep(second)
  await rm(kept, { recursive: true })
  await cp(join(other.folder, second), kept, { recursive: true })
  assert.deepEqual(await here.complaints(), [
    `${third}: names ${second} as the one before, which is another than was signed then`,
  ])
  await other.keep('20260101T000007Z-vm-100')
  await cp(join(other.folder, '20260101T000007Z-vm-100'), join(here.folder, '20260101T000007Z-vm-100'), {
    recursive: true,
  })
  assert.match(
    (await here.complaints()).join('\n'),
    new RegExp(`-vm-100: names ${second} as the one before, as ${third} does`),
  )
})
