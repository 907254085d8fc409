/**
 * A small authenticated GET over TLS keep-alive, through front and daemon, against a bare HTTPS hello on
 * Node with the same reply. CPU of the servers alone, and time per request on one connection, on 8 and on 64.
 *
 *   node bench/small-get.ts [requests per round] [rounds]
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { benchNode } from './bench-node.ts'
import { median, row, table } from './figures.ts'
import { keepAliveLoad, type Load } from './keep-alive-load.ts'

const [requests = 2000, rounds = 9] = process.argv.slice(2).map(Number)

await using undo = new AsyncDisposableStack()
const node = undo.use(await benchNode())
const { api, settings, certificate, daemonPid, frontPid } = node

await api('POST', '/access/users', { userid: 'ann@pve', password: 'correct horse' })
await api('PUT', '/access/acl', { path: '/access/groups', users: 'ann@pve', roles: 'PVEUserAdmin' })
const login = (await api('POST', '/access/ticket', { username: 'ann@pve', password: 'correct horse' })).data
const { ticket } = login as { ticket: string }
const token = (await api('POST', '/access/users/ann@pve/token/bench', { privsep: 0 })).data
const { value, 'full-tokenid': tokenid } = token as { value: string; 'full-tokenid': string }
const byTicket = { Cookie: `PVEAuthCookie=${encodeURIComponent(ticket)}` }
const byToken = { Authorization: `PVEAPIToken=${tokenid}=${value}` }
const body = JSON.stringify({ data: (await api('GET', '/version')).data })

const hello = await helloServer()
undo.defer(hello.end)
const front = { port: settings.apiPort, pids: [daemonPid, frontPid] }
const version = '/api2/json/version'
const user = '/api2/json/access/users/ann@pve'
const cases = [
  { name: 'bare Node HTTPS hello', place: hello, path: '/', headers: byTicket },
  { name: 'GET /version, ticket', place: front, path: version, headers: byTicket },
  { name: 'GET /version, API token', place: front, path: version, headers: byToken },
  { name: 'GET /access/users/{userid}, rights by ACL', place: front, path: user, headers: byTicket },
]

for (const connections of [1, 8, 64]) {
  const loads = await Promise.all(
    cases.map(({ place: { port }, path, headers }) => keepAliveLoad({ port, certificate, connections, path, headers })),
  )
  const samples = cases.map(() => [] as { wallMs: number; cpuMs: number[] }[])
  for (let round = -2; round < rounds; round += 1) {
    for (const [at, { place }] of cases.entries()) {
      const sample = await measured(loads[at] as Load, place.pids)
      // The first rounds warm the code up and do not count.
      if (round >= 0) samples[at]?.push(sample)
    }
  }
  for (const load of loads) load[Symbol.dispose]()
  print(connections, samples)
}

async function measured(load: Load, pids: readonly number[]): Promise<{ wallMs: number; cpuMs: number[] }> {
  const [before, began] = [pids.map(cpuMsOf), performance.now()]
  await load.run(requests)
  return { wallMs: performance.now() - began, cpuMs: pids.map((pid, at) => cpuMsOf(pid) - (before[at] ?? 0)) }
}

/** All threads of a process, to the nanosecond. */
function cpuMsOf(pid: number): number {
  const tasks = readdirSync(`/proc/${pid}/task`)
  return (
    tasks.reduce(
      (sum, id) => sum + Number(readFileSync(`/proc/${pid}/task/${id}/schedstat`, 'utf8').split(' ')[0]),
      0,
    ) / 1e6
  )
}

function print(connections: number, samples: readonly { wallMs: number; cpuMs: number[] }[][]): void {
  const perRequest = (values: readonly number[]) => (median(values) * 1000) / requests
  const facts = samples.map((all) => ({
    wall: perRequest(all.map(({ wallMs }) => wallMs)),
    cpu: perRequest(all.map(({ cpuMs }) => cpuMs.reduce((a, b) => a + b, 0))),
    daemon: perRequest(all.map(({ cpuMs: [daemon = 0] }) => daemon)),
  }))
  const [peer] = facts
  const lines = facts.map(({ wall, cpu, daemon }, at) =>
    row(
      cases[at]?.name ?? '',
      wall.toFixed(0),
      cpu.toFixed(0),
      at === 0 ? '-' : daemon.toFixed(0),
      (wall / (peer?.wall ?? 1)).toFixed(2),
      (cpu / (peer?.cpu ?? 1)).toFixed(2),
    ),
  )
  table(row(`${connections} connection(s), per request`, 'wall µs', 'CPU µs', '(daemon)', 'x wall', 'x CPU'), lines)
}

async function helloServer(): Promise<{ port: number; pids: number[]; end: () => void }> {
  const child = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', join(import.meta.dirname, 'hello-https.ts')],
    {
      stdio: ['pipe', 'pipe', 'inherit'],
    },
  )
  const key = readFileSync(join(settings.stateDir, 'keys', 'tls.key'), 'utf8')
  child.stdin.write(`${JSON.stringify({ key, certificate, body })}\n`)
  const [port] = (await once(child.stdout, 'data')) as [Buffer]
  return { port: Number(port.toString()), pids: [child.pid ?? 0], end: () => child.stdin.end() }
}
