/** What the lab reads from its node, and what it is called. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { KeptDrill } from '#recovery/service.ts'
import { fieldsOf, type LabApi, requireGood } from './api.ts'
import { freshLogin, showDrill } from './lab.ts'
import { addressIn } from './lab-machine.ts'
import { labSettings } from './lab-settings.ts'
import type { LabTerminal } from './terminal.ts'

test('the lab has names of its own, and the environment can rename it', () => {
  const { instance, node, stateDir, cacheDir, bridge, apiPort } = labSettings({})
  assert.deepEqual(
    { instance, node, stateDir, cacheDir, bridge, apiPort },
    {
      instance: 'lab',
      node: 'lab',
      stateDir: '/var/lib/hakobune/lab',
      cacheDir: '/var/cache/hakobune/lab',
      bridge: 'nat',
      apiPort: 8006,
    },
  )
  assert.equal(labSettings({ HAKO_INSTANCE: 'lab2' }).instance, 'lab2')
})

test("the guest's address is the first that others can reach", () => {
  const card = (address: string, type = 'ipv4') => ({
    name: 'x',
    'ip-addresses': [{ 'ip-address': address, 'ip-address-type': type, prefix: 24 }],
  })
  assert.equal(addressIn([card('127.0.0.1'), card('fe80::1', 'ipv6'), card('10.181.0.52')]), '10.181.0.52')
  assert.equal(addressIn([card('169.254.3.4')]), undefined)
  assert.equal(addressIn(undefined), undefined)
  assert.equal(addressIn([{ name: 'eth0' }]), undefined)
})

test('a task that failed is told in its own words; warnings are no failure', () => {
  requireGood('backup', { upid: 'UPID:x', exitstatus: 'WARNINGS: 2' })
  assert.throws(() => requireGood('backup', { upid: 'UPID:x', exitstatus: 'no space left' }), /backup: no space left/)
})

test('every run gets a new password, for a user made once', async () => {
  const calls: string[] = []
  const secrets: unknown[] = []
  const users: { userid: string }[] = []
  const write = (method: string) => (path: string, params?: Readonly<Record<string, unknown>>) => {
    calls.push(`${method} ${path}`)
    if (params?.password !== undefined) secrets.push(params.password)
    if (path === '/access/users') users.push({ userid: 'lab@pve' })
    return Promise.resolve(null)
  }
  const api: LabApi = {
    get: () => Promise.resolve(users),
    post: write('POST'),
    put: write('PUT'),
    task: () => Promise.reject(new Error('no task is expected')),
  }
  let turn = 0
  const random = { bytes: (count: number) => new Uint8Array(count).fill((turn += 1)), uuid: () => '' }
  const first = await freshLogin({ api, random })
  const second = await freshLogin({ api, random })
  assert.deepEqual(calls, ['POST /access/users', 'PUT /access/acl', 'PUT /access/password', 'PUT /access/acl'])
  assert.deepEqual(secrets, [first.secret, second.secret])
  assert.notEqual(first.secret, second.secret)
  assert.equal(first.secret.length, 20)
})

test('the last line of a drill is the one to quote', () => {
  const lines: string[] = []
  const terminal: LabTerminal = {
    language: 'ja',
    width: undefined,
    out: (text) => void lines.push(...text.split('\n')),
    show: () => {},
    signal: new AbortController().signal,
  }
  const drill = {
    verdicts: [
      { level: 'L0', held: true, found: '1 disk', tookMs: 12 },
      { level: 'L1', held: false, found: 'chunk abc', tookMs: 40 },
    ],
    phases: { fetch: 400 },
    evidence: '/var/lib/hakobune/lab/evidence/x',
    quote: 'VM 100 NOT proven: reached L0 of L6',
  } as unknown as KeptDrill
  showDrill(terminal, drill)
  assert.equal(lines.at(-1), 'VM 100 NOT proven: reached L0 of L6')
  assert.ok(lines.includes('      ✗ L1 全チャンクを検証: chunk abc (0.0 s)'))
  assert.ok(lines.some((line) => line.includes('fetch 00:00.4')))
  assert.ok(lines.some((line) => line.includes('/evidence/x')))
})

test('fields of anything that is no object are none', () => {
  assert.deepEqual([fieldsOf(null), fieldsOf('x'), fieldsOf({ a: 1 })], [{}, {}, { a: 1 }])
})
