/** Shares of a real SMB server on this machine, seen through the node. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { machine } from '#host/exec.ts'
import { endProcess, findProcesses, startTimeOf } from '#host/programs/proc.ts'
import { type WholeNode, wholeNode } from './whole-node.ts'

const closing = new AsyncDisposableStack()
/** The port is fixed by the protocol; the address is ours alone. */
const server = `127.66.${process.pid % 250}.${1 + (Math.floor(process.pid / 250) % 250)}`
const password = 'correct horse battery'
let node: WholeNode

before(async () => {
  node = closing.use(await wholeNode())
  await startServer()
})
after(() => closing.disposeAsync())

async function startServer(): Promise<void> {
  const home = await mkdtemp('/var/tmp/hako-smb-')
  closing.defer(() => rm(home, { recursive: true, force: true }))
  const places = ['lock', 'state', 'cache', 'pid', 'private', 'ncalrpc']
  for (const place of places) await mkdir(join(home, place))
  const config = join(home, 'smb.conf')
  const lines = [
    '[global]',
    ...places.map(
      (place) => `${place} ${place === 'ncalrpc' || place === 'private' ? 'dir' : 'directory'} = ${home}/${place}`,
    ),
    `interfaces = ${server}/8`,
    'bind interfaces only = yes',
    'disable netbios = yes',
    'smb ports = 445',
    `passdb backend = tdbsam:${home}/private/passdb.tdb`,
    'map to guest = never',
    'load printers = no',
    'disable spoolss = yes',
    '[films]',
    `path = ${home}`,
    'comment = What was filmed',
    '[hidden$]',
    `path = ${home}`,
  ]
  await writeFile(config, `${lines.join('\n')}\n`)
  await machine().run(['smbpasswd', '-c', config, '-s', '-a', 'root'], { input: `${password}\n${password}\n` })
  const args = ['--foreground', '--no-process-group', '--debug-stdout', `--configfile=${config}`]
  const daemon = spawn('smbd', args, { stdio: 'ignore', detached: true })
  const ended = new Promise((resolve) => daemon.once('close', resolve))
  closing.defer(async () => {
    // It leads a group of its own: its children go with it.
    if (daemon.exitCode === null && daemon.signalCode === null && daemon.pid !== undefined)
      process.kill(-daemon.pid, 'SIGKILL')
    await ended
    // Its helpers for RPC lead sessions of their own.
    for (const pid of await findProcesses((argv) => argv.includes(`--configfile=${config}`))) {
      await endProcess(pid, await startTimeOf(pid), { graceMs: 0 })
    }
  })
  await waitFor(() => accepts(server), { what: 'the SMB server', timeoutMs: 60_000 })
}

function accepts(host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(445, host)
    socket.once('connect', () => (socket.destroy(), resolve(true)))
    socket.once('error', () => resolve(false))
  })
}

const scan = async (params: Record<string, unknown>) =>
  (await node.api('GET', `/nodes/${node.settings.node}/scan/cifs`, params)).data as {
    share: string
    description: string
  }[]

test('who may log in is told which shares there are', async () => {
  const shares = await scan({ server, username: 'root', password })
  assert.deepEqual(
    shares.find(({ share }) => share === 'films'),
    { share: 'films', description: 'What was filmed' },
  )
})

test('who may not, and where nobody listens, is told what the server says', async () => {
  await assert.rejects(
    scan({ server, username: 'root', password: 'wrong' }),
    /does not list its shares: NT_STATUS_LOGON_FAILURE/,
  )
  await assert.rejects(scan({ server, password: 'wrong' }), /Parameter verification failed/)
  await assert.rejects(
    scan({ server: '127.66.251.1' }),
    /'127\.66\.251\.1' does not list its shares: NT_STATUS_CONNECTION_REFUSED/,
  )
})
