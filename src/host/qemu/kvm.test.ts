import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { machine } from '../exec.ts'
import type { Argv, Host } from '../host.ts'
import { accelerator, runProbe, verdictOf } from './kvm.ts'

const qemu = 'qemu-system-x86_64'

test('the probe passes under emulation, so a failure elsewhere is not its own', async () => {
  const result = await runProbe(machine(), qemu, 'tcg', 20_000)
  assert.deepEqual({ code: result.code, trace: result.trace }, { code: 33, trace: 'ABCDEFG' })
  assert.equal(verdictOf(result).accelerator, 'kvm')
})

test('every way to fail means emulation, and is told in words', () => {
  const reasons = [
    { code: undefined, trace: 'A', said: 'qemu: not done within 0.5 s' },
    { code: 35, trace: 'ABCD!', said: '' },
    { code: 1, trace: '', said: 'Could not access KVM kernel module: No such file or directory' },
    { code: 33, trace: 'ABC', said: '' },
  ].map(verdictOf)
  assert.deepEqual(new Set(reasons.map((verdict) => verdict.accelerator)), new Set(['tcg']))
  assert.match(reasons[0]?.reason ?? '', /stopped before protected mode/)
  assert.match(reasons[1]?.reason ?? '', /stopped before interrupts/)
  assert.match(reasons[2]?.reason ?? '', /No such file/)
})

async function withCache(use: (cacheDir: string) => Promise<void>): Promise<void> {
  const cacheDir = await mkdtemp(join(tmpdir(), 'hk-kvm-'))
  try {
    await use(cacheDir)
  } finally {
    await rm(cacheDir, { recursive: true })
  }
}

test('this machine gets a verdict, which is remembered', () =>
  withCache(async (cacheDir) => {
    const runs: Argv[] = []
    const host: Host = {
      run: (argv, options) => {
        runs.push(argv)
        return machine().run(argv, options)
      },
    }
    const first = await accelerator({ host, cacheDir })
    assert.ok(first.reason.length > 20)
    assert.equal(runs.length, process.arch === 'x64' ? 1 : 0)
    runs.length = 0
    assert.deepEqual(await accelerator({ host, cacheDir }), first)
    assert.deepEqual(runs, [], 'every start asks: no program runs for it')
  }))

test('a verdict of another boot or another QEMU, or a broken file, is not believed', () =>
  withCache(async (cacheDir) => {
    const file = join(cacheDir, 'kvm-verdict.json')
    await accelerator({ host: machine(), cacheDir })
    const known = JSON.parse(await readFile(file, 'utf8'))
    for (const stale of [{ ...known, bootId: 'x' }, { ...known, program: 'x' }, { ...known, accelerator: 'x' }, '{']) {
      await writeFile(file, typeof stale === 'string' ? stale : JSON.stringify({ ...stale, reason: 'stale' }))
      assert.notEqual((await accelerator({ host: machine(), cacheDir })).reason, 'stale')
      assert.equal(JSON.parse(await readFile(file, 'utf8')).bootId, known.bootId)
    }
  }))

test('without QEMU it says that QEMU is missing', () =>
  withCache(async (cacheDir) => {
    await assert.rejects(
      accelerator({ host: machine(), cacheDir, qemu: 'qemu-system-nowhere' }),
      (error) => isFault(error, 'missing') && /qemu-system-nowhere/.test(error.message),
    )
  }))
