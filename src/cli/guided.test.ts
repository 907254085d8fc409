/** Commands that tell a person more than their reply. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { offlineCommands } from '#commands.ts'
import { isFault } from '#base/fault.ts'
import { findCommand } from './command-tree.ts'
import type { Connection } from './connection.ts'
import { removeStorage } from './remove-storage.ts'
import type { RunFacts } from './run-command.ts'
import { setGuest } from './set-guest.ts'
import type { Terminal } from './terminal.ts'

const list = offlineCommands('lab')

/** A node that answers these paths, and a terminal that keeps what it is shown. */
function world(replies: Readonly<Record<string, unknown>>): { facts: RunFacts; shown: string[]; called: string[] } {
  const [shown, called]: [string[], string[]] = [[], []]
  const connection: Connection = {
    socketPath: '',
    call: (method, path) => {
      called.push(`${method} ${path}`)
      return Promise.resolve({ data: replies[`${method} ${path}`] ?? null })
    },
  }
  const terminal: Terminal = {
    language: 'en',
    width: 80,
    out: (text) => shown.push(text),
    write: () => {},
    readSecret: () => Promise.resolve(''),
    readInput: () => Promise.resolve(''),
    show: (line) => shown.push(line),
    signal: new AbortController().signal,
  }
  return { facts: { connection, list, terminal }, shown, called }
}

function run(of: typeof setGuest, args: readonly string[], facts: RunFacts): Promise<number> {
  const found = findCommand(list.commands, args)
  assert.ok(found)
  return of(found.command, found.rest, facts)
}

test('a change a running guest does not take is said, with how to make it hold and how to take it back', async () => {
  const pending = 'GET /nodes/lab/qemu/100/pending'
  const { facts, shown } = world({
    [pending]: [
      { key: 'cores', value: 1 },
      { key: 'memory', value: '64', pending: '96' },
      { key: 'net1', value: 'virtio', delete: 1 },
    ],
  })
  assert.equal(await run(setGuest, ['vm', 'set', '100', '--memory', '96'], facts), 0)
  assert.deepEqual(shown, [
    'The running guest does not have these yet: memory 64 → 96; net1 virtio → -. They hold from its next start.',
    'Next: hako vm reboot 100, or take it back: hako vm set 100 --revert memory,net1',
  ])
  const stopped = world({ [pending]: [{ key: 'memory', value: '96' }] })
  await run(setGuest, ['vm', 'set', '100', '--memory', '96'], stopped.facts)
  assert.deepEqual(stopped.shown, [])
})

test('a bridge this node does not have is said, where one sees its bridges', async () => {
  const bridges = 'GET /nodes/lab/network'
  const set = ['vm', 'set', '100', '--net0', 'virtio,bridge=vmbr9', '--net1', 'bridge=vmbr0,model=virtio']
  const { facts, shown } = world({ [bridges]: [{ iface: 'vmbr0' }] })
  assert.equal(await run(setGuest, set, facts), 0)
  assert.deepEqual(shown, [
    "Note: net0: bridge 'vmbr9' does not exist on this node; the guest cannot start before it does.",
  ])
  for (const rows of [[{ iface: 'vmbr0' }, { iface: 'vmbr9' }], []]) {
    const quiet = world({ [bridges]: rows })
    await run(setGuest, set, quiet.facts)
    assert.deepEqual(quiet.shown, [])
  }
})

test('a script that changes a guest is told nothing it did not ask for', async () => {
  const { facts, shown, called } = world({})
  await run(setGuest, ['vm', 'set', '100', '--memory', '96', '-q'], facts)
  assert.deepEqual(shown, [])
  assert.deepEqual(called, ['PUT /nodes/lab/qemu/100/config'])
})

test('who uses a storage is said before it is removed, and nothing is removed before the name is typed again', async () => {
  const { facts, called, shown } = world({
    'GET /nodes/lab/storage/fast/content': [
      { content: 'images', vmid: 101 },
      { content: 'images', vmid: 100 },
      { content: 'iso' },
      { content: 'backup', vmid: 100 },
    ],
    'GET /cluster/backup': [
      { id: 'nightly', storage: 'fast' },
      { id: 'weekly', storage: 'far' },
    ],
  })
  await assert.rejects(
    run(removeStorage, ['storage', 'remove', 'fast'], facts),
    (fault) =>
      isFault(fault, 'invalid') &&
      fault.message.includes('disks of VM 100, 101; 1 iso; 1 backup; job nightly.') &&
      fault.remedy === 'Repeat it with --confirm fast.',
  )
  assert.ok(!called.some((call) => call.startsWith('DELETE')), called.join())
  await assert.rejects(run(removeStorage, ['storage', 'remove', 'local'], facts), /Every node has 'local'/)
  await run(removeStorage, ['storage', 'remove', 'local', '--confirm', 'local'], facts)
  assert.equal(called.at(-1), 'DELETE /storage/local')
  assert.match(shown[0] ?? '', /^Every node has 'local': removed, it is as a new node has it\.$/)
  await run(removeStorage, ['storage', 'remove', 'fast', '--confirm', 'fast'], facts)
  assert.equal(shown.length, 2)
})
