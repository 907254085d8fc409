/** The first command of the README, as a user types it: twice, ended by Ctrl-C, and taken down again. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { request } from 'node:https'
import { join } from 'node:path'
import { after, suite, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { machine } from '#host/exec.ts'
import { httpGet } from '#host/network/http-probe.ts'
import { nodeProcesses } from '#lab/daemon.ts'
import { takeDown } from '#lab/down.ts'
import { labSettings } from '#lab/lab-settings.ts'
import { recoveryKeyFile } from '#lab/recovery-key.ts'
import { forwardingButForOthers } from '../forwarding.ts'
import { freePort, freshInstance } from '../own-names.ts'

const root = join(import.meta.dirname, '../..')
const instance = freshInstance('l')
const names = {
  HAKO_INSTANCE: instance,
  HAKO_STATE_DIR: `/var/lib/hakobune-${instance}/lab`,
  HAKO_RUN_DIR: `/run/hakobune-${instance}/lab`,
  HAKO_CACHE_DIR: `/var/cache/hakobune-${instance}/lab`,
  HAKO_API_PORT: String(await freePort()),
}
const proven = (guest: string) =>
  new RegExp(
    `^${guest} proven to L6: restored, booted and answering in \\d\\d:\\d\\d\\.\\d; data from \\d\\d:\\d\\d:\\d\\d before now$`,
    'm',
  )
const guests = [
  { name: 'VM 100', page: /Hakobune lab guest/, kind: 'qemu' },
  { name: 'CT 101', page: /comes out of a container/, kind: 'lxc' },
] as const

interface Ended {
  readonly code: number | null
  readonly out: string
  readonly all: string
}

function hako(...args: string[]): { child: ChildProcess; said: () => string; ended: Promise<Ended> } {
  const child = spawn(join(root, 'hako'), args, { env: { ...process.env, ...names, LANG: 'C.UTF-8' }, cwd: '/' })
  let [out, all] = ['', '']
  child.stdout.on('data', (part: Buffer) => ((out += part.toString('utf8')), (all += part.toString('utf8'))))
  child.stderr.on('data', (part: Buffer) => (all += part.toString('utf8')))
  const ended = new Promise<Ended>((resolve) => child.on('close', (code) => resolve({ code, out, all })))
  return { child, said: () => all, ended }
}

suite('the lab', { timeout: 600_000, concurrency: 1 }, () => {
  const settings = labSettings(names)
  after(() => takeDown({ settings, host: machine(), alsoShared: true }))
  let before: Trace

  test('from nothing to a proven restore of each guest, with a line to quote and evidence that verifies', async () => {
    before = await trace()
    const { code, out, all } = await hako('lab', '--exit').ended
    assert.equal(code, 0, all)
    const levels = [...out.matchAll(/✓ (L\d) /g)].map(([, level]) => level)
    const all6 = ['L0', 'L1', 'L2', 'L3', 'L4', 'L5', 'L6']
    assert.deepEqual(levels, [...all6, ...all6], all)
    const [key = ''] = /^ +((?:[A-Z2-7]{7}-){7}[A-Z2-7]{7})$/m.exec(out)?.slice(1) ?? []
    assert.equal(await readFile(recoveryKeyFile({ settings }), 'utf8'), `${key}\n`, all)
    // Without the node: the datastore, and what was printed.
    const datastore = join(settings.stateDir, 'storage/local/datastore')
    const opened = await hako(
      'datastore',
      'show',
      datastore,
      'vm/100',
      '--recovery-key-file',
      recoveryKeyFile({ settings }),
    ).ended
    assert.equal(opened.code, 0, opened.all)
    assert.match(opened.out, /scsi0/)
    for (const phase of ['write', 'boot', 'ready', 'application'])
      assert.equal(out.match(new RegExp(`^phases: .*${phase} \\d\\d:`, 'gm'))?.length, 2, all)
    const directories = [...out.matchAll(/^evidence: (\S+)$/gm)].map(([, directory = '']) => directory)
    for (const [at, { name, kind }] of guests.entries()) {
      assert.match(out, proven(name), all)
      const record = await readFile(join(directories[at] ?? '', 'record.json'), 'utf8')
      assert.match(record, /"reached": "L6"/)
      assert.match(record, new RegExp(`"kind": "${kind}"`))
      const verified = await hako('evidence', 'verify', directories[at] ?? '').ended
      assert.equal(verified.code, 0, verified.all)
    }
    assert.deepEqual(await nodeProcesses(settings), [])
  })

  test('a second run goes on with what is there, serves the login it printed, and ends on Ctrl-C', async () => {
    const { child, said, ended } = hako('lab')
    await waitFor(() => /Ctrl-C/.test(said()) || child.exitCode !== null, { what: 'the lab', timeoutMs: 240_000 })
    const pages = [...said().matchAll(/web page answers at (http\S+)/g)].map(([, url = '']) => url)
    for (const [at, { name, page }] of guests.entries()) {
      assert.match(said(), new RegExp(`${name} is there`))
      assert.match(said(), proven(name))
      const { status, body } = await httpGet({ host: machine(), url: pages[at] ?? '' })
      assert.equal(status, 200)
      assert.match(body, page)
    }
    const [, username = '', password = ''] = /user (\S+), password (\w{20})/.exec(said()) ?? []
    assert.equal(await login(username, password), 200, said())
    assert.equal(await login(username, `${password}x`), 401)
    child.kill('SIGINT')
    const { code, all } = await ended
    assert.equal(code, 0, all)
    assert.deepEqual(await nodeProcesses(settings), [])
  })

  test('lab down leaves the machine as it was before the first run', async () => {
    const { code, out } = await hako('lab', 'down').ended
    assert.equal(code, 0, out)
    assert.match(out, /nothing stays/)
    assert.deepEqual(await trace(), before)
    assert.match((await hako('lab', 'down').ended).out, /nothing to remove/)
  })
})

type Trace = Readonly<Record<string, readonly string[]>>

/** All of the machine a lab could leave something in. What other nodes make carries other names. */
async function trace(): Promise<Trace> {
  const host = machine()
  const lines = async (...argv: [string, ...string[]]) => (await host.run(argv)).stdout.split('\n')
  const own = (list: readonly string[]) => list.filter((line) => line.includes(instance)).toSorted()
  return {
    processes: own((await lines('ps', '-eo', 'args')).filter((line) => !line.includes('ps -eo'))),
    links: own(await lines('ip', '-brief', 'link')),
    namespaces: own(await lines('ip', 'netns', 'list')),
    rules: own(await lines('nft', 'list', 'tables')),
    mounts: own((await readFile('/proc/mounts', 'utf8')).split('\n')),
    forwarding: [await forwardingButForOthers(instance)],
    groups: own(await lines('find', '/sys/fs/cgroup', '-maxdepth', '2', '-name', 'hakobune-*')),
    files: own((await Promise.all(['/var/lib', '/run', '/var/cache', '/etc', '/tmp', '/root'].map(namesIn))).flat()),
  }
}

const namesIn = async (directory: string) => (await readdir(directory)).map((name) => join(directory, name))

/** Status of a login at the public port. */
function login(username: string, password: string): Promise<number> {
  const body = new URLSearchParams({ username, password }).toString()
  const url = `https://127.0.0.1:${names.HAKO_API_PORT}/api2/json/access/ticket`
  const headers = { 'content-type': 'application/x-www-form-urlencoded', 'content-length': String(body.length) }
  return new Promise((resolve, reject) => {
    // The certificate is the node's own and new; who answers is not what is tested here.
    const call = request(url, { method: 'POST', headers, rejectUnauthorized: false }, (reply) => {
      reply.resume()
      resolve(reply.statusCode ?? 0)
    })
    call.on('error', reject)
    call.end(body)
  })
}
