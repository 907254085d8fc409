/**
 * `GET /cluster/resources` with many guests over one TLS connection that is kept, by a user whose rights come
 * from an ACL, against a bare HTTPS hello on Node: CPU of the servers alone. A client that takes gzip, as most do,
 * and one that does not; and in the last line a node where something changes between two requests.
 *
 *   node bench/resources.ts [guests] [requests per round] [rounds]
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { benchNode } from './bench-node.ts'
import { row, table } from './figures.ts'
import { keepAliveLoad } from './keep-alive-load.ts'
import { compareLoads, helloServer } from './server-load.ts'

const [guests = 1000, requests = 200, rounds = 9] = process.argv.slice(2).map(Number)

await using undo = new AsyncDisposableStack()
const node = undo.use(await benchNode({ guests }))
const { api, settings, certificate } = node
await api('POST', '/access/users', { userid: 'ann@pve', password: 'correct horse' })
await api('PUT', '/access/acl', { path: '/vms', users: 'ann@pve', roles: 'PVEAuditor' })
const login = (await api('POST', '/access/ticket', { username: 'ann@pve', password: 'correct horse' })).data
const Cookie = `PVEAuthCookie=${encodeURIComponent((login as { ticket: string }).ticket)}`
const key = readFileSync(join(settings.stateDir, 'keys', 'tls.key'), 'utf8')
const body = JSON.stringify({ data: (await api('GET', '/version')).data })
const hello = await helloServer({ key, certificate, body })
undo.defer(hello.end)

const pids = [node.daemonPid, node.frontPid]
const load = async (path: string, headers: Record<string, string>, port = settings.apiPort) =>
  undo.use(await keepAliveLoad({ port, certificate, connections: 1, path, headers }))
const resources = '/api2/json/cluster/resources'
const list = await load(resources, { Cookie, 'Accept-Encoding': 'gzip' })
let round = 0
const cases = [
  { name: 'bare Node HTTPS hello', load: await load('/', { Cookie }, hello.port), pids: hello.pids, requests: 2000 },
  { name: `${guests} guests, gzip`, load: list, pids, requests },
  { name: `${guests} guests, plain`, load: await load(resources, { Cookie }), pids, requests },
  {
    name: `${guests} guests, gzip, one changed each time`,
    load: {
      run: async (times: number) => {
        for (let at = 0; at < times; at += 1) {
          round += 1
          await api('PUT', `/nodes/${settings.node}/qemu/100/config`, { description: `round ${round}` })
          await list.run(1)
        }
      },
      [Symbol.dispose]: () => {},
    },
    pids,
    requests: Math.ceil(requests / 10),
  },
]
const figures = await compareLoads(cases, rounds)
const peer = figures[0]?.cpu ?? 1
const lines = figures.map(({ wall, cpu, cpuOf: [daemon = 0] }, at) =>
  row(
    cases[at]?.name ?? '',
    wall.toFixed(0),
    cpu.toFixed(0),
    at === 0 ? '-' : daemon.toFixed(0),
    (cpu / peer).toFixed(1),
  ),
)
table(row('per request', 'wall µs', 'CPU µs', '(daemon)', 'x CPU'), lines)
