import assert from 'node:assert/strict'
import { test } from 'node:test'
import { machine } from '../exec.ts'
import { journal, parseJournal, parseUnit } from './systemd.ts'

test('a unit is what systemd says of it; one that is not there is not found', () => {
  const running =
    'Id=ssh.service\nDescription=OpenBSD Secure Shell server\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n'
  assert.deepEqual(parseUnit('ssh.service', running), {
    unit: 'ssh.service',
    description: 'OpenBSD Secure Shell server',
    activeState: 'active',
    subState: 'running',
    fileState: 'enabled',
  })
  const absent =
    'Id=x.service\nDescription=x.service\nLoadState=not-found\nActiveState=inactive\nSubState=dead\nUnitFileState=\n'
  assert.deepEqual(
    [parseUnit('x.service', absent).fileState, parseUnit('x.service', absent).subState],
    ['not-found', 'dead'],
  )
  assert.equal(parseUnit('y.service', '').activeState, 'unknown')
})

const entry = (number: number, message: unknown) =>
  JSON.stringify({
    __CURSOR: `s=1;i=${number}`,
    __REALTIME_TIMESTAMP: String((Date.parse('2026-11-20T10:00:00') + number * 1000) * 1000),
    _HOSTNAME: 'one',
    SYSLOG_IDENTIFIER: 'sshd',
    _PID: '42',
    MESSAGE: message,
  })

test('lines of the journal read as in a system log, whatever bytes they hold', () => {
  const text = [entry(1, 'hello'), 'noise', entry(2, [104, 105, 255]), entry(3, 'bye')].join('\n')
  const page = parseJournal(text)
  assert.equal(page.lines[0], 'Nov 20 10:00:01 one sshd[42]: hello')
  assert.match(page.lines[1] ?? '', /sshd\[42\]: hi/)
  assert.deepEqual([page.firstCursor, page.lastCursor], ['s=1;i=1', 's=1;i=3'])
  assert.equal(parseJournal(text, 's=1;i=2').lines.length, 2)
  assert.deepEqual(parseJournal(''), { lines: [] })
})

test('a journal without entries that fit is empty, not a failure', async () => {
  const page = await journal(machine(), { since: 4_000_000_000, newest: 5 })
  assert.deepEqual(page.lines, [])
})
