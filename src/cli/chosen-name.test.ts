import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nothing, optional, string } from '#base/schema/schema.ts'
import { commandsOf } from '#rest/command.ts'
import { check, endpointsOf } from '#rest/endpoint.ts'
import type { Connection } from './connection.ts'
import { runCommand } from './run-command.ts'
import type { Terminal } from './terminal.ts'

const commands = commandsOf<null>([
  endpointsOf<null>()({
    method: 'POST',
    path: '/cluster/backup',
    description: 'Create a backup job.',
    params: { id: optional(string()) },
    permission: check('Sys.Modify', '/'),
    returns: nothing,
    cli: { command: ['job', 'create'], chooses: { option: 'id', prefix: 'backup-' } },
    handle: () => null,
  }),
])

async function run(...args: string[]): Promise<{ called: string; printed: string[] }> {
  let called = ''
  const printed: string[] = []
  const call: Connection['call'] = async (_method, _path, params) => {
    called = String(params?.id)
    return { data: null }
  }
  const terminal = { language: 'en', width: 80, out: (text: string) => printed.push(text) } as unknown as Terminal
  const [command] = commands
  assert.ok(command)
  const facts = { connection: { call } as Connection, list: { node: 'lab', version: '1', commands }, terminal }
  await runCommand(command, args, facts)
  return { called, printed }
}

test('whoever gives no name is told the one that was found', async () => {
  const { called, printed } = await run()
  assert.match(called, /^backup-[0-9a-f]{8}-[0-9a-f]{4}$/)
  assert.deepEqual(printed, [called])
  const asJson = await run('-o', 'json')
  assert.deepEqual(asJson.printed, [`"${asJson.called}"`])
  assert.notEqual(asJson.called, called)
})

test('whoever gives one is told nothing they did not know', async () => {
  assert.deepEqual(await run('--id', 'nightly'), { called: 'nightly', printed: [] })
  assert.deepEqual(await run('--id', 'nightly', '-o', 'json'), { called: 'nightly', printed: ['null'] })
})
