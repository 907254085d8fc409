/**
 * An NFS server and an iSCSI portal, seen through a node. Ports of both are fixed by their protocols, so servers and
 * node have a network namespace to themselves.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { machine } from '#host/exec.ts'
import type { Argv } from '#host/host.ts'
import { createNetns, inNetns, removeNetns } from '#host/network/netns.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

const host = machine()
const netns = `hkscan${process.pid}`
const here = '127.0.0.1'
/** Where tgt leaves its sockets. */
const sockets = '/run/tgtd'
const closing = new AsyncDisposableStack()
let node: TestNode

before(async () => {
  await createNetns(host, netns)
  // Ends what is left inside, too.
  closing.defer(() => removeNetns(host, netns))
  const [started] = await Promise.all([nodeUnderTest({ netns, changes: { bridge: 'none' } }), nfsServer(), portal()])
  node = closing.use(started)
})
after(() => closing.disposeAsync())

function start(...argv: Argv): ChildProcess {
  const [program, ...args] = inNetns(netns, argv)
  const child = spawn(program, args, { stdio: 'ignore' })
  const ended = new Promise((resolve) => child.once('close', resolve))
  closing.defer(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
    await ended
  })
  return child
}

const inside = (...argv: Argv) => host.run(inNetns(netns, argv))
const succeeds = (act: () => Promise<unknown>) =>
  act().then(
    () => true,
    () => false,
  )

async function nfsServer(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'hako-nfs-'))
  closing.defer(() => rm(folder, { recursive: true, force: true }))
  const config = join(folder, 'ganesha.conf')
  const exported = (id: number, path: string, more = '') =>
    `EXPORT { Export_Id = ${id}; Path = ${path}; Pseudo = ${path}; Access_Type = RO; FSAL { Name = MEM; } ${more} }`
  const lines = [
    'NFS_CORE_PARAM { Protocols = 3; Enable_NLM = false; Enable_RQUOTA = false; }',
    exported(1, '/films', 'CLIENT { Clients = 192.0.2.0/24, @desks; Access_Type = RW; }'),
    exported(2, '/open'),
  ]
  await writeFile(config, `${lines.join('\n')}\n`)
  // Both meet at a socket in /run, where the machine's own may lie.
  const script = 'mount -t tmpfs tmpfs /run && mkdir /run/rpcbind /run/ganesha && rpcbind && exec ganesha.nfsd "$@"'
  const options = ['-F', '-L', join(folder, 'log'), '-f', config, '-p', join(folder, 'pid')]
  start('unshare', '--mount', '--', 'sh', '-c', script, 'sh', ...options)
  const answers = () => succeeds(() => inside('showmount', '--exports', here))
  await waitFor(answers, { what: 'the NFS server', timeoutMs: 20_000, everyMs: 100 })
}

async function portal(): Promise<void> {
  const control = ['tgtadm', '-C', String(process.pid % 30_000), '--lld', 'iscsi'] as const
  start('tgtd', '-f', '--iscsi', `portal=${here}:3260`, '-C', control[2])
  closing.defer(async () => {
    for (const name of await readdir(sockets)) {
      if (name.startsWith(`socket.${control[2]}`)) await rm(join(sockets, name))
    }
  })
  const add = (tid: number, name: string) =>
    inside(...control, '--op', 'new', '--mode', 'target', '--tid', String(tid), '-T', `iqn.2026-11.org.example:${name}`)
  await waitFor(() => succeeds(() => add(1, 'films')), { what: 'the iSCSI portal', timeoutMs: 20_000 })
  await add(2, 'books')
  for (const tid of ['1', '2']) await inside(...control, '--op', 'bind', '--mode', 'target', '--tid', tid, '-I', 'ALL')
}

const scan = (what: string, params: Record<string, string>) =>
  node.api('GET', `/nodes/${node.settings.node}/scan/${what}`, params)

test('exports of an NFS server are told with those they are for', async () => {
  assert.deepEqual(await scan('nfs', { server: here }), [
    { path: '/films', options: '192.0.2.0/24,desks' },
    { path: '/open', options: '(everyone)' },
  ])
  await assert.rejects(scan('nfs', { server: '198.51.100.1' }), /'198\.51\.100\.1' does not list its exports: RPC/)
  await assert.rejects(scan('nfs', { server: '-h' }), /Parameter verification failed/)
})

test('targets of an iSCSI portal are told with where they are', async () => {
  const targets = ['films', 'books'].map((name) => ({
    target: `iqn.2026-11.org.example:${name}`,
    portal: `${here}:3260`,
  }))
  const byTarget = (a: { target: string }, b: { target: string }) => (a.target < b.target ? -1 : 1)
  for (const given of [here, `${here}:3260`, `[${here}]:3260`]) {
    const found = (await scan('iscsi', { portal: given })) as typeof targets
    assert.deepEqual(found.toSorted(byTarget), targets.toSorted(byTarget))
  }
  const refused = /does not list its targets: .*refused/
  await assert.rejects(scan('iscsi', { portal: `${here}:3261` }), refused)
  for (const odd of ['a@b', `${here}:0`, `${here}:70000`, 'x/y', '-d'])
    await assert.rejects(scan('iscsi', { portal: odd }), /Parameter verification failed/, odd)
})
