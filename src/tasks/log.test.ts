import assert from 'node:assert/strict'
import { appendFile, mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { limits } from '#base/limits.ts'
import { readLogPage, TaskLog, toLines } from './log.ts'

async function place() {
  const directory = await mkdtemp(join(tmpdir(), 'hako-log-'))
  return { path: join(directory, 'log'), [Symbol.asyncDispose]: () => rm(directory, { recursive: true }) }
}

test('the last line tells the outcome, and is written once even when the process died after it', async () => {
  for (const [exitstatus, line] of [
    ['OK', 'TASK OK'],
    ['WARNINGS: 2', 'TASK WARNINGS: 2'],
    ['disk is full', 'TASK ERROR: disk is full'],
  ] as const) {
    await using here = await place()
    for (const _ of ['first process', 'its recovery']) {
      using log = new TaskLog(here.path)
      log.end(exitstatus)
    }
    assert.equal(await readFile(here.path, 'utf8'), `${line}\n`)
  }
})

test('pages count from one, and zero means all', async () => {
  await using here = await place()
  assert.deepEqual(await readLogPage(here.path, 0, 50), { lines: [{ n: 1, t: 'no content' }], total: 1 })
  using log = new TaskLog(here.path)
  assert.deepEqual(await readLogPage(here.path, 5, 50), { lines: [{ n: 1, t: 'no content' }], total: 1 })
  log.line('a\nb\r\n\nc\n')
  const lines = ['a', 'b', '', 'c'].map((t, index) => ({ n: index + 1, t }))
  assert.deepEqual(await readLogPage(here.path, 0, 0), { lines, total: 4 })
  assert.deepEqual(await readLogPage(here.path, 1, 2), { lines: lines.slice(1, 3), total: 4 })
  assert.deepEqual(await readLogPage(here.path, 4, 50), { lines: [], total: 4 })
})

test('a line is bounded and printable', () => {
  assert.deepEqual(toLines('a\u001b[31mred\tb\0'), ['a[31mred    b'])
  const [line = ''] = toLines('ß'.repeat(limits.tasks.logLineBytes))
  assert.ok(Buffer.byteLength(line) <= limits.tasks.logLineBytes + 3 && line.endsWith('ß…'))
  const [odd = ''] = toLines(`x${'ß'.repeat(limits.tasks.logLineBytes)}`)
  assert.ok(odd.endsWith('ß…'))
})

test('a full log says so once and still gets its last line', async () => {
  await using here = await place()
  using log = new TaskLog(here.path)
  const line = 'x'.repeat(limits.tasks.logLineBytes)
  for (let size = 0; size < limits.tasks.logBytes + 10 * line.length; size += line.length) log.line(line)
  log.end('OK')
  assert.ok((await stat(here.path)).size <= limits.tasks.logBytes + 1000)
  const { total } = await readLogPage(here.path, 0, 1)
  const { lines } = await readLogPage(here.path, total - 2, 0)
  assert.match(lines[0]?.t ?? '', /^the log is full/)
  assert.equal(lines[1]?.t, 'TASK OK')
})

test('a recovery counts the warnings before it, and does not write into a torn line', async () => {
  await using here = await place()
  {
    using log = new TaskLog(here.path)
    log.warn('dust')
  }
  await appendFile(here.path, 'half a li')
  using log = new TaskLog(here.path)
  log.warn('scratches')
  assert.equal(log.warnings, 2)
  assert.equal(await readFile(here.path, 'utf8'), 'WARN: dust\nhalf a li\nWARN: scratches\n')
})
