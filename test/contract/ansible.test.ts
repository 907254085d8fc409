/** Debian's Ansible and its Proxmox VE modules, unmodified: what is declared twice changes once. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { machine } from '#host/exec.ts'
import { ensureGuestImage } from '#lab/guest-image.ts'
import { ownBridge } from '../../src/settings.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'
import { automation, changes, environment, play as playIn } from './ansible-play.ts'

let node: TestNode
let scratch: string
let variables: Record<string, unknown>

before(async () => {
  node = await nodeUnderTest({ client: 'Ansible' })
  scratch = await mkdtemp(join(tmpdir(), 'hako-ansible-'))
  await node.boot(900, { name: 'base', scsi0: await imported(), ide2: 'local:cloudinit' })
  const guest = `/nodes/${node.settings.node}/qemu/900`
  await node.task(await node.api('POST', `${guest}/status/stop`))
  await node.task(await node.api('POST', `${guest}/template`))
  const iso = join(scratch, 'tools.iso')
  await writeFile(iso, '')
  await truncate(iso, 1 << 20)
  variables = {
    ...(await automation(node)),
    iso,
  }
})

after(async () => {
  await node?.[Symbol.asyncDispose]()
  await rm(scratch, { recursive: true, force: true })
})

async function imported(): Promise<string> {
  const image = await ensureGuestImage({ host: machine(), cacheDir: node.settings.cacheDir })
  return `local:0,import-from=${image.path},format=qcow2`
}

const play = (name: string, more: Record<string, unknown> = {}) =>
  playIn(name, { scratch, variables: { ...variables, ...more } })

const guestApi = async (path: string) =>
  (await node.api('GET', `/nodes/${node.settings.node}/qemu/901/${path}`)) as Record<string, unknown>

test('what is declared comes to be, and declared again it changes nothing', { timeout: 600_000 }, async () => {
  const steps = ['clone', 'network card', 'snapshot', 'disk', 'larger disk', 'start', 'upload']
  assert.deepEqual(changes(await play('present.yml')), Object.fromEntries(steps.map((step) => [step, true])))
  const config = await guestApi('config')
  assert.match(String(config.scsi1), /^local:901\/vm-901-disk-\d+\.\w+,.*size=2G/)
  assert.match(String(config.net1), new RegExp(`^virtio=[0-9A-F:]{17},bridge=${ownBridge(node.settings)}$`))
  assert.equal((await guestApi('status/current')).status, 'running')
  const again = changes(await play('present.yml'))
  assert.deepEqual(again, Object.fromEntries(steps.map((step) => [step, false])))
})

test('a rollback, a backup and every question are answered as the modules expect', { timeout: 600_000 }, async () => {
  const outcomes = await play('verbs.yml')
  assert.equal(outcomes['tags and cloud-init']?.changed, true)
  assert.equal(outcomes['roll back']?.changed, true)
  assert.equal(outcomes['backed up']?.failed, undefined)
  assert.equal(outcomes.status?.status, 'stopped', 'a snapshot without memory is rolled back to a stopped guest')
  const list = (name: string, fact: string) => outcomes[name]?.[fact] as Record<string, unknown>[]
  assert.deepEqual(
    list('storages', 'proxmox_storages').map(({ storage }) => storage),
    ['local'],
  )
  assert.ok(list('users', 'proxmox_users').some(({ userid }) => userid === variables.api_user))
  assert.deepEqual(list('groups', 'proxmox_groups'), [])
  assert.deepEqual(
    list('domains', 'proxmox_domains').map(({ realm }) => realm),
    ['pam', 'pve'],
  )
  const backups = (await node.api('GET', `/nodes/${node.settings.node}/storage/local/content`, {
    content: 'backup',
  })) as { vmid: number }[]
  assert.deepEqual(
    backups.map(({ vmid }) => vmid),
    [901],
  )
})

test('the inventory plugin finds the guest with its facts, its pool and its tags', async () => {
  await node.api('PUT', `/nodes/${node.settings.node}/qemu/901/config`, { tags: 'shop;front' })
  const source = join(scratch, 'node.proxmox.yml')
  const { api_host, api_user, token_id, token_secret } = variables
  await writeFile(
    source,
    JSON.stringify({
      plugin: 'community.general.proxmox',
      url: `https://${String(api_host)}`,
      user: api_user,
      token_id,
      token_secret,
      validate_certs: false,
      want_facts: true,
    }),
    { mode: 0o600 },
  )
  const { stdout, stderr } = await promisify(execFile)('/usr/bin/ansible-inventory', ['-i', source, '--list'], {
    env: environment(scratch),
    timeout: 60_000,
  })
  assert.doesNotMatch(stderr, /WARNING/, stderr)
  const inventory = JSON.parse(stdout) as Record<string, { hosts?: string[] }> & {
    _meta: { hostvars: Record<string, Record<string, unknown>> }
  }
  assert.deepEqual(inventory.proxmox_all_qemu?.hosts, ['web'], 'the template is not among them')
  assert.deepEqual(inventory.proxmox_pool_shop?.hosts, ['web'])
  assert.deepEqual(inventory.proxmox_nodes?.hosts, [node.settings.node])
  const facts = inventory._meta.hostvars.web ?? assert.fail('the guest has no facts')
  assert.equal(facts.proxmox_status, 'stopped')
  assert.deepEqual(facts.proxmox_tags_parsed, ['front', 'shop'])
  assert.deepEqual(facts.proxmox_snapshots, ['before'])
})

test('what is declared absent goes, and declared again it changes nothing', { timeout: 600_000 }, async () => {
  const outcomes = changes(await play('absent.yml', { exists: true }))
  assert.deepEqual(outcomes, {
    stop: false,
    'no snapshot': true,
    'no disk': true,
    'no network card': true,
    delete: true,
    'no upload': true,
  })
  const again = changes(await play('absent.yml', { exists: false }))
  assert.ok(
    Object.values(again).every((changed) => !changed),
    JSON.stringify(again),
  )
  const left = (await node.api('GET', '/cluster/resources', { type: 'vm' })) as { vmid: number }[]
  assert.deepEqual(
    left.map(({ vmid }) => vmid),
    [900],
  )
  const images = (await node.api('GET', `/nodes/${node.settings.node}/storage/local/content`, {
    content: 'images',
  })) as { vmid: number }[]
  assert.ok(images.every(({ vmid }) => vmid === 900))
})
