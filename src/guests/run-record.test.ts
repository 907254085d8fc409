import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { nodeFlags } from '#base/node-flags.ts'
import { startTimeOf } from '#host/programs/proc.ts'
import { RunRecords, type StartingRecord } from './run-record.ts'

const home = mkdtempSync(join(tmpdir(), 'hako-records-'))
after(() => rmSync(home, { recursive: true }))
const vmid = asVmid(100)
const records = (name: string) => new RunRecords(join(home, name), () => {})
const starter = { pid: process.pid, startTime: (await startTimeOf(process.pid)) ?? 0 }
const starting: StartingRecord = { state: 'starting', kind: 'qemu', starter, startedBy: '', netns: '' }

test('who cleans up never takes a start that is under way for a dead one', async (t) => {
  const ours = records('busy')
  await ours.begin(vmid, starting)
  await ours.remove(vmid)
  const reaper = spawn(process.execPath, [
    ...nodeFlags,
    join(import.meta.dirname, '../../test/fixtures/record-reaper.ts'),
    join(home, 'busy'),
  ])
  t.after(() => reaper.kill('SIGKILL'))
  const [first] = (await once(createInterface(reaper.stdout), 'line')) as [string]
  assert.equal(first, 'ready')
  let taken = ''
  reaper.stdout.on('data', (text: Buffer) => (taken += text.toString()))
  for (let start = 0; start < 1_000; start += 1) {
    await ours.begin(vmid, starting)
    assert.equal((await ours.alive(vmid))?.state, 'starting', `start ${start}`)
    await ours.remove(vmid)
  }
  reaper.kill('SIGKILL')
  await once(reaper, 'close')
  assert.equal(taken, '')
})

test('of two who start only one does, and of a starter that was killed before it began nothing stays', async () => {
  const ours = records('left')
  await ours.begin(vmid, starting)
  const isRefused = (fault: unknown) => isFault(fault, 'conflict') && /VM 100 already running/.test(fault.message)
  await assert.rejects(ours.begin(vmid, starting), isRefused)
  const atOnce = await Promise.allSettled([1, 2, 3].map(() => records('once').begin(vmid, starting)))
  assert.deepEqual(atOnce.map(({ status }) => status).toSorted(), ['fulfilled', 'rejected', 'rejected'])
  // Of a process there cannot be: numbers end at 2^22.
  writeFileSync(join(home, 'left', `100.begun-${2 ** 23}-1`), '')
  writeFileSync(join(home, 'left', `101.begun-${2 ** 23}-1`), '')
  writeFileSync(join(home, 'left', `101.begun-${process.pid}-1`), '')
  assert.deepEqual(await ours.forgetUnbegun(), [vmid])
  assert.deepEqual(readdirSync(join(home, 'left')).toSorted(), ['100.json', `101.begun-${process.pid}-1`])
  await records('nowhere').forgetUnbegun()
})

test('an end that was begun is told once who began it has died, and goes with what is cleaned up', async () => {
  const ours = records('ending')
  await ours.begin(vmid, starting)
  await ours.noteEnding(vmid, starter, 'shutdown')
  assert.deepEqual(await ours.abandonedEndings(), [])
  // Of a process there cannot be: numbers end at 2^22.
  const ending = { by: { pid: 2 ** 23, startTime: 1 }, process: starter, how: 'stop' } as const
  writeFileSync(join(home, 'ending', '100.ending'), JSON.stringify(ending))
  writeFileSync(join(home, 'ending', '101.ending'), '{"by"')
  assert.deepEqual(await ours.abandonedEndings(), [{ vmid, ending }])
  await ours.finish(vmid)
  assert.deepEqual(await ours.abandonedEndings(), [])
  assert.deepEqual(await records('nowhere').abandonedEndings(), [])
})
