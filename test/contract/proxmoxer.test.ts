/** Debian's python3-proxmoxer, unmodified, through the public port. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { machine } from '#host/exec.ts'
import { ensureGuestImage } from '#lab/guest-image.ts'
import { ownBridge } from '../../src/settings.ts'
import { nodeUnderTest } from '../node-under-test.ts'

const script = join(import.meta.dirname, 'vm_life.py')

async function runScript(facts: object): Promise<unknown> {
  const child = promisify(execFile)('/usr/bin/python3', ['-B', '-W', 'ignore', script], { timeout: 400_000 })
  child.child.stdin?.end(JSON.stringify(facts))
  return JSON.parse((await child).stdout)
}

test('proxmoxer lives a whole life of a VM, by ticket and by token', { timeout: 900_000 }, async () => {
  await using node = await nodeUnderTest({ client: 'proxmoxer' })
  const image = await ensureGuestImage({ host: machine(), cacheDir: node.settings.cacheDir })
  const user = 'ci@pve'
  const password = 'correct horse battery'
  await node.api('POST', '/access/users', { userid: user, password })
  await node.api('PUT', '/access/acl', { path: '/', users: user, roles: 'Administrator' })
  const token = (await node.api('POST', `/access/users/${user}/token/build`, { privsep: '0' })) as { value: string }
  // Importing a file from anywhere on the node is for root alone, so the image first becomes a volume.
  const { settings } = node
  const base = {
    host: '127.0.0.1',
    port: settings.apiPort,
    node: settings.node,
    bridge: ownBridge(settings),
    image: await importedImage(node, image.path),
  }
  const expected = { version: '9.2.3', status: 'running', restored: 'before', left: [] }
  for (const facts of [
    { ...base, vmid: 200, user, password },
    { ...base, vmid: 300, user, token_name: 'build', token_value: token.value },
  ]) {
    assert.deepEqual(await runScript(facts), expected)
  }
})

async function importedImage(node: Awaited<ReturnType<typeof nodeUnderTest>>, path: string): Promise<string> {
  const spooled = await node.connection.call(
    'POST',
    `/nodes/${node.settings.node}/storage/local/upload`,
    { content: 'import', filename: path },
    { isUpload: true },
  )
  await node.task(spooled.data)
  const volumes = (await node.api('GET', `/nodes/${node.settings.node}/storage/local/content`, {
    content: 'import',
  })) as { volid: string }[]
  return volumes[0]?.volid ?? assert.fail('the uploaded image is not there')
}
