import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { string } from '#base/schema/schema.ts'
import { upid } from '#base/schema/standard.ts'
import { commandsOf } from '#rest/command.ts'
import { check, endpointsOf } from '#rest/endpoint.ts'
import type { Connection } from './connection.ts'
import { runCommand } from './run-command.ts'
import type { Terminal } from './terminal.ts'

const commands = commandsOf<null>([
  endpointsOf<null>()({
    method: 'DELETE',
    path: '/storage/{storage}/prunebackups',
    description: 'Remove what need not be kept.',
    params: { storage: string(), keep: string() },
    permission: check('Datastore.Allocate', '/'),
    returns: upid,
    cli: {
      command: ['backup', 'prune'],
      positional: ['storage'],
      destroys: 'storage',
      dryRun: { columns: ['mark', 'volid'], id: 'volid' },
    },
    handle: () => 'x',
  }),
])

/** Runs the command against a node that lists one backup, and says what was called and printed. */
async function run(...args: string[]) {
  const said: unknown[] = []
  const call: Connection['call'] = async (method, path, params) => {
    said.push([method, path, params])
    return { data: [{ mark: 'remove', volid: 'a:b', other: 1 }] }
  }
  const terminal = { language: 'en', width: 80, out: (text: string) => said.push(text) } as unknown as Terminal
  const [command] = commands
  assert.ok(command)
  const facts = { connection: { call } as Connection, list: { node: 'lab', version: '1', commands }, terminal }
  await runCommand(command, args, facts)
  return said
}

test('a dry run asks what would be done, needs no confirmation and is no parameter', async () => {
  const said = await run('local', '--keep', 'keep-last=1', '--dry-run', '-o', 'id')
  assert.deepEqual(said, [['GET', '/storage/local/prunebackups', { keep: 'keep-last=1' }], 'a:b'])
  const [, table] = await run('local', '--keep', 'keep-last=1', '--dry-run')
  assert.match(String(table), /^MARK\s+VOLID\s*\n.*remove\s+a:b/s)
})

test('without it the deed is done, once it is confirmed', async () => {
  await assert.rejects(
    run('local', '--keep', 'keep-last=1'),
    (fault) => isFault(fault, 'invalid') && fault.remedy === 'Repeat it with --confirm local.',
  )
  const [call] = await run('local', '--keep', 'keep-last=1', '--no-dry-run', '--confirm', 'local', '--no-wait')
  assert.deepEqual(call, ['DELETE', '/storage/local/prunebackups', { keep: 'keep-last=1' }])
})
