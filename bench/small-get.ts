/**
 * A small authenticated GET over TLS keep-alive, through front and daemon, against a bare HTTPS hello on
 * Node with the same reply. CPU of the servers alone, and time per request on one connection, on 8 and on 64.
 *
 *   node bench/small-get.ts [requests per round] [rounds]
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { benchNode } from './bench-node.ts'
import { row, table } from './figures.ts'
import { keepAliveLoad, type Load } from './keep-alive-load.ts'
import { compareLoads, helloServer, type LoadFigures } from './server-load.ts'

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

const key = readFileSync(join(settings.stateDir, 'keys', 'tls.key'), 'utf8')
const hello = await helloServer({ key, certificate, body })
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
  const figures = await compareLoads(
    cases.map(({ name, place: { pids } }, at) => ({ name, pids, requests, load: loads[at] as Load })),
    rounds,
  )
  for (const load of loads) load[Symbol.dispose]()
  print(connections, figures)
}

function print(connections: number, figures: readonly LoadFigures[]): void {
  const [peer] = figures
  const lines = figures.map(({ wall, cpu, cpuOf: [daemon = 0] }, at) =>
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
