/** Debian's python3-proxmoxer, unmodified, through the public port, against real containers. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { MiB } from '#base/bytes.ts'
import { ownBridge } from '../../src/settings.ts'
import { offerTemplate } from '../fixtures/containers/template.ts'
import { nodeUnderTest } from '../node-under-test.ts'

const script = join(import.meta.dirname, 'ct_life.py')

async function runScript(facts: object): Promise<unknown> {
  const child = promisify(execFile)('/usr/bin/python3', ['-B', '-W', 'ignore', script], { timeout: 240_000 })
  child.child.stdin?.end(JSON.stringify(facts))
  return JSON.parse((await child).stdout)
}

test('proxmoxer lives a whole life of a container, by ticket and by token', { timeout: 300_000 }, async () => {
  await using node = await nodeUnderTest({ client: 'proxmoxer' })
  const { settings } = node
  await offerTemplate(settings)
  const [user, password] = ['ci@pve', 'correct horse battery']
  await node.api('POST', '/access/users', { userid: user, password })
  await node.api('PUT', '/access/acl', { path: '/', users: user, roles: 'Administrator' })
  const token = (await node.api('POST', `/access/users/${user}/token/build`, { privsep: '0' })) as { value: string }
  const place = { host: '127.0.0.1', port: settings.apiPort, node: settings.node, bridge: ownBridge(settings) }
  const base = { ...place, template: 'local:vztmpl/busybox.tar.gz' }
  const expected = {
    status: ['running', 'byproxmoxer', 64 * MiB, 'lxc'],
    interfaces: ['eth0', 'lo'],
    inside: 'byproxmoxer',
    config: [80, 'changed', 'renamed'],
    pending: ['renamed'],
    renamed: 'renamed',
    twin: ['twin', 'kept'],
    left: [],
  }
  for (const facts of [
    { ...base, vmid: 200, user, password },
    { ...base, vmid: 300, user, token_name: 'build', token_value: token.value },
  ]) {
    assert.deepEqual(await runScript(facts), expected)
  }
})
