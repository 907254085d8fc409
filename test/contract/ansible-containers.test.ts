/** Debian's Ansible and its module for containers, unmodified, against real containers. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { offerTemplate } from '../fixtures/containers/template.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'
import { automation, changes, environment, play } from './ansible-play.ts'

type Reply = Record<string, unknown>

let node: TestNode
let scratch: string
let variables: Record<string, unknown>

before(async () => {
  node = await nodeUnderTest({ client: 'Ansible' })
  scratch = await mkdtemp(join(tmpdir(), 'hako-ansible-'))
  const ofAlpine = { 'etc/os-release': 'ID=alpine\n', 'etc/shadow': 'root:*:19000:0:::::\n', 'sbin/ifup': '' }
  await offerTemplate(node.settings, ofAlpine)
  variables = {
    ...(await automation(node)),
    template: 'local:vztmpl/busybox.tar.gz',
  }
})

after(async () => {
  await node?.[Symbol.asyncDispose]()
  await rm(scratch, { recursive: true, force: true })
})

const get = async (path: string) => (await node.api('GET', `/nodes/${node.settings.node}/lxc/${path}`)) as Reply
const inside = async (vmid: number, ...command: string[]) => {
  const path = `/hako/containers/${node.settings.node}/${vmid}/exec`
  return ((await node.api('POST', path, { command })) as { 'out-data': string })['out-data'].trim()
}

test('a container comes to be as it is declared, once, starts, stops and is cloned', { timeout: 300_000 }, async () => {
  const outcomes = await play('containers.yml', { scratch, variables })
  assert.deepEqual(changes(outcomes), {
    create: true,
    'create again': false,
    start: true,
    'start again': false,
    stop: true,
    clone: true,
    'start the clone': true,
  })
  const config = await get('920/config')
  assert.match(String(config.rootfs), /^local:920\/vm-920-disk-\d+\.raw,size=/)
  assert.match(String(config.mp0), /mp=\/srv\/more/)
  const { hostname, memory, swap, cores, cpulimit, cpuunits, onboot, tags, description, unprivileged } = config
  assert.deepEqual(
    [hostname, memory, swap, cores, cpulimit, cpuunits, onboot, tags, description, unprivileged],
    ['front', 64, 0, 1, 1, 200, 1, 'front;shop', 'the shop', 1],
  )
  assert.equal((await get('920/status/current')).status, 'stopped')
  assert.equal((await get('921/status/current')).status, 'running')
  assert.equal(await inside(921, '/bin/hostname'), 'back')
  assert.equal(await inside(921, '/bin/cat', '/root/starts'), 'xx', 'its first start after that of its original')
  assert.match(await inside(921, '/bin/cat', '/root/.ssh/authorized_keys'), /deploy@example/)
})

test('the inventory plugin finds containers with their facts, their pool and their tags', async () => {
  const source = join(scratch, 'node.proxmox.yml')
  const { api_host, api_user, token_id, token_secret } = variables
  const facts = { plugin: 'community.general.proxmox', url: `https://${String(api_host)}`, user: api_user }
  const access = { token_id, token_secret, validate_certs: false, want_facts: true }
  await writeFile(source, JSON.stringify({ ...facts, ...access }), { mode: 0o600 })
  const { stdout, stderr } = await promisify(execFile)('/usr/bin/ansible-inventory', ['-i', source, '--list'], {
    env: environment(scratch),
    timeout: 60_000,
  })
  assert.doesNotMatch(stderr, /WARNING/, stderr)
  const inventory = JSON.parse(stdout) as Record<string, { hosts?: string[] }> & {
    _meta: { hostvars: Record<string, Reply> }
  }
  assert.deepEqual(inventory.proxmox_all_lxc?.hosts?.toSorted(), ['back', 'front'])
  assert.deepEqual(inventory.proxmox_all_running?.hosts, ['back'])
  assert.deepEqual(inventory.proxmox_pool_shop?.hosts, ['front'])
  const { front = {} } = inventory._meta.hostvars
  assert.deepEqual([front.proxmox_vmid, front.proxmox_status, front.proxmox_memory], [920, 'stopped', 64])
  assert.deepEqual(front.proxmox_tags_parsed, ['front', 'shop'])
})

test('what is declared absent goes, and declared again it changes nothing', { timeout: 300_000 }, async () => {
  const outcomes = changes(await play('containers-absent.yml', { scratch, variables }))
  const expected = { 'stop the clone': true, delete: true, 'delete again': false, 'delete the clone': true }
  assert.deepEqual(outcomes, expected)
  assert.deepEqual(await node.api('GET', '/cluster/resources', { type: 'vm' }), [])
})
