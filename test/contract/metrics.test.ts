/** Metric servers: what a real listener for each manner of telling receives, and what a listener that is not there costs. */
import assert from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer as createHttpServer } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { seconds, systemClock, waitFor } from '#base/clock.ts'
import { asVolumeId } from '#base/ids.ts'
import { createLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { BackupCounts } from '#cluster/backup-counts.ts'
import { ensureCertificate } from '#cluster/self-signed.ts'
import { Teller } from '#loops/metrics.ts'
import { buildServices, type Services } from '#services.ts'
import { acquireLocks, releaseLocks } from '#tasks/lock.ts'
import { TaskService } from '#tasks/service.ts'
import { type WholeNode, wholeNode } from './whole-node.ts'

const closing = new AsyncDisposableStack()
const lines: string[] = []
const ending = new AbortController()
let node: WholeNode
let teller: Teller
let services: Services & { readonly tasks: TaskService }
const path = '/cluster/metrics/server'

before(async () => {
  node = closing.use(await wholeNode())
  const { api, settings, ended } = node
  const made = await api('POST', `/nodes/${settings.node}/qemu`, { vmid: 100, name: 'web-one', memory: 64 })
  assert.equal(await ended(made.data), 'OK')
  const log = createLog((line) => lines.push(line))
  const built = await buildServices(settings, { log, isStoreChecked: false })
  closing.defer(() => built.store[Symbol.asyncDispose]())
  // It only reads what those of the node have written down.
  const tasks = closing.use(new TaskService({ ...built, workerEntry: '', operations: new Map() }))
  services = { ...built, tasks }
  closing.defer(() => ending.abort())
  teller = new Teller(services, ending.signal)
})
after(() => closing.disposeAsync())

/** Tells everybody once, and waits until they are told. */
async function round(): Promise<void> {
  await teller.round()
  await teller.settled()
}

async function withServer(id: string, params: Record<string, unknown>, act: () => Promise<void>): Promise<void> {
  // Those that are there have all the time they need.
  const patience = params.type === 'opentelemetry' ? { 'otel-timeout': 10 } : { timeout: 60 }
  await node.api('POST', `${path}/${id}`, { server: '127.0.0.1', ...patience, ...params })
  try {
    await act()
  } finally {
    await node.api('DELETE', `${path}/${id}`)
  }
}

/** A listener for packets; each holds whole lines. */
async function udpListener() {
  const packets: string[] = []
  const socket = createSocket('udp4', (packet) => void packets.push(packet.toString()))
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  closing.defer(() => void socket.close())
  const received = (text: string) =>
    waitFor(() => (packets.join('').includes(text) ? packets : undefined), { what: text, timeoutMs: 60_000 })
  return { port: socket.address().port, received }
}

interface Request {
  readonly url: string
  readonly headers: Readonly<Record<string, unknown>>
  readonly body: Buffer
}

/** A web server that takes everything, or answers with another status. */
async function webListener(status = 204, tls?: { key: string; cert: string }) {
  const requests: Request[] = []
  const take = async (request: AsyncIterable<Buffer> & { url?: string | undefined; headers: object }) => {
    const parts: Buffer[] = []
    for await (const part of request) parts.push(part)
    requests.push({ url: request.url ?? '', headers: { ...request.headers }, body: Buffer.concat(parts) })
  }
  const answer: Parameters<typeof createHttpServer>[1] = (request, response) =>
    void take(request).then(() => response.writeHead(status).end())
  const server = tls ? createHttpsServer(tls, answer) : createHttpServer(answer)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  closing.defer(async () => {
    server.close()
    server.closeAllConnections()
  })
  return { port: (server.address() as AddressInfo).port, requests }
}

/** `measurement,tag=a\ b field=1,other=2 time` */
function parseInflux(text: string) {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => {
      const [head = '', fields = '', time = ''] = line.split(/(?<!\\) /)
      const [measurement = '', ...tags] = head.split(/(?<!\\),/)
      const pairs = (parts: string[]) => Object.fromEntries(parts.map((part) => part.replaceAll('\\', '').split('=')))
      return { measurement, tags: pairs(tags), fields: pairs(fields.split(',')), time }
    })
}

test('Graphite hears names and numbers by UDP, in packets that fit, and by TCP', async () => {
  const udp = await udpListener()
  await withServer('graphs', { type: 'graphite', port: udp.port, mtu: 512, path: 'lab.hosts' }, async () => {
    await round()
    const packets = await udp.received(`lab.hosts.storages.${node.settings.node}.local.total `)
    assert.ok(packets.length > 1)
    assert.ok(packets.every((packet) => Buffer.byteLength(packet) <= 484 && packet.endsWith('\n')))
    const told = packets.join('').trimEnd().split('\n')
    for (const line of told) assert.match(line, /^lab\.hosts(?:\.[A-Za-z0-9_-]+)+ -?[\d.e+-]+ \d{10}$/)
    const value = (name: string) => Number(told.find((line) => line.startsWith(`lab.hosts.${name} `))?.split(' ')[1])
    assert.ok(value(`nodes.${node.settings.node}.memory.memused`) > 1_000_000)
    assert.equal(value('qemu.100.maxmem'), 64 * 1024 * 1024)
    assert.equal(value('qemu.100.uptime'), 0)
  })
  const texts: string[] = []
  const server = createTcpServer((socket) => socket.on('data', (part: Buffer) => texts.push(part.toString())))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  closing.defer(() => void server.close())
  const { port } = server.address() as AddressInfo
  await withServer('graphs', { type: 'graphite', port, proto: 'tcp' }, async () => {
    await round()
    const all = () => texts.join('').includes(`proxmox.storages.${node.settings.node}.local.avail `)
    await waitFor(all, { what: 'the last line', timeoutMs: 60_000 })
    assert.match(texts.join(''), /^proxmox\.qemu\.100\.cpus 1 \d{10}$/m)
  })
})

test('backups are told of: how old and large the last one of each guest is, and how the datastore is', async () => {
  const { api, settings, ended } = node
  const at = `/nodes/${settings.node}`
  const made = await api('POST', `${at}/qemu`, { vmid: 101, name: 'kept', memory: 64, scsi0: 'local:0.01' })
  assert.equal(await ended(made.data), 'OK')
  const backups: string[] = []
  for (let number = 0; number < 2; number += 1) {
    assert.equal(await ended((await api('POST', `${at}/vzdump`, { vmid: '101', storage: 'local' })).data), 'OK')
  }
  const { data } = await api('GET', `${at}/storage/local/content`, { content: 'backup' })
  backups.push(...(data as { volid: string }[]).map(({ volid }) => volid))
  assert.equal(backups.length, 2)
  const pruning = { 'prune-backups': 'keep-last=3' }
  assert.equal(await ended((await api('DELETE', `${at}/storage/local/prunebackups`, pruning)).data), 'OK')
  const ofGuest = { vmid: '101', storage: 'local', 'prune-backups': 'keep-last=2' }
  assert.equal(await ended((await api('POST', `${at}/vzdump`, ofGuest)).data), 'OK')
  await acquireLocks(services.store, ['guest/101'], 'UPID:other')
  const held = await api('POST', `${at}/vzdump`, { vmid: '101', storage: 'local', lockwait: 0 })
  assert.match(await ended(held.data), /can't lock 'guest\/101'/)
  await releaseLocks(services.store, (holder) => holder === 'UPID:other')
  const restoring = await api('POST', `${at}/qemu`, { vmid: 102, archive: backups[1], storage: 'local' })
  assert.equal(await ended(restoring.data), 'OK')
  await services.backup.annotate(asVolumeId(backups[1] ?? ''), { hint: 'a sudden jump' })
  await new BackupCounts(services.store).retried('local', 3, seconds(services.clock))
  const job = { id: 'look', type: 'verify', storage: 'local', schedule: '03:00' }
  await api('POST', '/hako/datastore-jobs', job)
  assert.equal(await ended((await api('POST', '/hako/datastore-jobs/look/run')).data), 'OK')
  assert.equal(await ended((await api('POST', '/hako/datastore/collect', { storage: 'local' })).data), 'OK')
  const udp = await udpListener()
  await withServer('influx', { type: 'influxdb', port: udp.port }, async () => {
    const fresh = new Teller(services, ending.signal)
    await fresh.round()
    // What is looked at takes its time, and is told the next time.
    await fresh.settled()
    await fresh.round()
    const told = parseInflux((await udp.received('datastore,object=storages')).join(''))
    const guest = told.find(({ measurement }) => measurement === 'backup')
    assert.equal(guest?.tags.vmid, '101')
    const { age, points, stored, size, duration, ...ofBackups } = guest?.fields ?? {}
    assert.deepEqual([ofBackups.hints, ofBackups.prunekept, ofBackups.pruneremoved], ['1', '2', '1'])
    // Its disk was read whole, with nothing on it; nobody freezes who stands still.
    const made = [ofBackups.diskswhole, ofBackups.diskschanged, ofBackups.read, ofBackups.audithits, ofBackups.frozen]
    assert.deepEqual(made, ['1', '0', '0', '0', undefined])
    assert.deepEqual([ofBackups.failures, ofBackups.alarms, ofBackups.restoregood], ['1', '0', undefined])
    const restored = told.find(({ measurement, tags }) => measurement === 'backup' && tags.vmid === '102')?.fields
    assert.deepEqual([restored?.restoregood, restored?.points, restored?.failures], ['1', '0', '0'])
    assert.ok(Number(age) >= 0 && Number(age) < 300, `${age}`)
    assert.deepEqual([points, stored, size], ['2', '0', '0'])
    assert.ok(Number(duration) < 60)
    const datastore = told.find(({ measurement }) => measurement === 'datastore')
    assert.deepEqual(
      [datastore?.tags.host, datastore?.fields.points, datastore?.fields.damaged, datastore?.fields.unverified],
      ['local', '2', '0', '2'],
    )
    assert.ok(Number(datastore?.fields.bytes) > 0)
    const { verifygood, verifybytes, verifyduration, verifyrunage, ...others } = datastore?.fields ?? {}
    assert.deepEqual([verifygood, verifybytes], ['1', datastore?.fields.bytes])
    assert.deepEqual([others.collectgood, others.collectfreed, others.collectcondemned], ['1', '0', '0'])
    const counted = [others.prunekept, others.pruneremoved, others.retries, others.hints, others.verifyfetched]
    assert.deepEqual(counted, ['2', '0', '3', '1', '0'])
    assert.deepEqual([others.failures, others.alarms], ['1', '0'])
    const ofRuns = [verifyduration, verifyrunage, others.verifygoodage, others.collectduration, others.collectrunage]
    const ofGuests = [ofBackups.hintage, ofBackups.prunerunage, ofBackups.failureage]
    const ofRestore = [restored?.restoreage, restored?.restoreduration]
    const ages = [...ofGuests, ...ofRestore, others.prunerunage, others.retryage, others.failureage]
    for (const some of [...ofRuns, ...ages]) {
      assert.ok(Number(some) >= 0 && Number(some) < 300, `${some}`)
    }
  })
})

test('InfluxDB hears measurements with tags by UDP, and over HTTP with its token', async () => {
  const udp = await udpListener()
  await withServer('influx', { type: 'influxdb', port: udp.port }, async () => {
    await round()
    const told = parseInflux((await udp.received('object=storages')).join(''))
    const guest = told.find(({ tags }) => tags.vmid === '100')
    assert.deepEqual(guest?.tags, { object: 'qemu', vmid: '100', nodename: node.settings.node, host: 'web-one' })
    assert.equal(guest?.fields.maxmem, String(64 * 1024 * 1024))
    assert.match(guest?.time ?? '', /^\d{19}$/)
    const memory = told.find(({ measurement }) => measurement === 'memory')
    assert.deepEqual(memory?.tags, { object: 'nodes', host: node.settings.node })
  })
  const web = await webListener()
  const options = { type: 'influxdb', port: web.port, influxdbproto: 'http', organization: 'our lab', bucket: 'all' }
  await withServer('influx', { ...options, token: 'sesame-4711', 'api-path-prefix': '/behind/proxy' }, async () => {
    await round()
    const [request] = web.requests
    assert.equal(request?.url, '/behind/proxy/api/v2/write?org=our+lab&bucket=all')
    assert.equal(request?.headers.authorization, 'Token sesame-4711')
    assert.ok(parseInflux(request?.body.toString() ?? '').some(({ tags }) => tags.vmid === '100'))
    // Whoever reads what is configured does not read how to write there.
    const shown = [await node.api('GET', `${path}/influx`), await node.api('GET', path)]
    assert.doesNotMatch(JSON.stringify(shown), /sesame/)
    // It stays when something else is changed, and goes when it is told to.
    await node.api('PUT', `${path}/influx`, { server: '127.0.0.1', port: web.port, bucket: 'other' })
    await round()
    assert.equal(web.requests[1]?.headers.authorization, 'Token sesame-4711')
    assert.match(web.requests[1]?.url ?? '', /bucket=other/)
    await node.api('PUT', `${path}/influx`, { server: '127.0.0.1', port: web.port, delete: 'token' })
    await round()
    assert.equal(web.requests[2]?.headers.authorization, undefined)
  })
})

test('a certificate nobody vouches for is refused unless told otherwise', async () => {
  const needs = {
    directory: `${node.settings.stateDir}/metrics-tls`,
    node: 'metrics',
    clock: systemClock,
    random: systemRandom,
  }
  const { key, certificate } = await ensureCertificate(needs)
  const web = await webListener(204, { key, cert: certificate })
  await withServer('influx', { type: 'influxdb', port: web.port, influxdbproto: 'https' }, async () => {
    await round()
    assert.equal(web.requests.length, 0)
    await node.api('PUT', `${path}/influx`, { server: '127.0.0.1', port: web.port, 'verify-certificate': 0 })
    await round()
    assert.equal(web.requests.length, 1)
  })
})

test('a collector of OpenTelemetry gets gauges, packed, with the headers and attributes that were given', async () => {
  const web = await webListener(200)
  const options = {
    type: 'opentelemetry',
    port: web.port,
    'otel-protocol': 'http',
    'otel-headers': Buffer.from('{"X-Api-Key":"sesame-42"}').toString('base64'),
    'otel-resource-attributes': '{"site":"lab"}',
  }
  await withServer('otel', options, async () => {
    await round()
    const [request] = web.requests
    assert.deepEqual([request?.url, request?.headers['x-api-key']], ['/v1/metrics', 'sesame-42'])
    const { resourceMetrics } = JSON.parse(gunzipSync(request?.body ?? '').toString()) as {
      resourceMetrics: {
        resource: { attributes: { key: string; value: { stringValue: string } }[] }
        scopeMetrics: {
          metrics: { name: string; gauge: { dataPoints: { asDouble: number; timeUnixNano: string }[] } }[]
        }[]
      }[]
    }
    const [{ resource, scopeMetrics } = assert.fail()] = resourceMetrics
    assert.ok(resource.attributes.some(({ key, value }) => key === 'site' && value.stringValue === 'lab'))
    const metrics = scopeMetrics[0]?.metrics ?? []
    const point = metrics.find(({ name }) => name === 'proxmox_guest_maxmem')?.gauge.dataPoints[0]
    assert.equal(point?.asDouble, 64 * 1024 * 1024)
    assert.match(point?.timeUnixNano ?? '', /^\d{19}$/)
    assert.doesNotMatch(JSON.stringify(await node.api('GET', `${path}/otel`)), /sesame|X-Api-Key/)
    // Smaller requests, each whole in itself.
    await node.api('PUT', `${path}/otel`, {
      server: '127.0.0.1',
      port: web.port,
      'otel-max-body-size': 4096,
      'otel-compression': 'none',
    })
    await round()
    const later = web.requests.slice(1)
    assert.ok(
      later.length > 1 && later.every(({ body }) => body.length <= 4096 && JSON.parse(body.toString()) !== null),
    )
  })
})

test('servers that are down, refuse or never answer hold up neither the node nor the others, and are told of once', async () => {
  const held: Socket[] = []
  const silent = createTcpServer((socket) => void held.push(socket.on('error', () => {}).resume()))
  silent.listen(0, '127.0.0.1')
  await once(silent, 'listening')
  closing.defer(() => void silent.close())
  const never = (silent.address() as AddressInfo).port
  const [angry, good] = [await webListener(500), await webListener()]
  const http = { server: '127.0.0.1', type: 'influxdb', influxdbproto: 'http', timeout: 60 }
  await node.api('POST', `${path}/held`, { ...http, port: never })
  await node.api('POST', `${path}/angry`, { ...http, port: angry.port })
  await node.api('POST', `${path}/nowhere`, { type: 'graphite', server: 'no-such-name.invalid', port: 2003 })
  await node.api('POST', `${path}/closed`, { type: 'graphite', server: '127.0.0.1', port: 1, proto: 'tcp' })
  await node.api('POST', `${path}/off`, { ...http, port: never, disable: 1 })
  await node.api('POST', `${path}/good`, { ...http, port: good.port })
  lines.length = 0
  let isOver = false
  const told = async (times: number) => {
    await teller.round()
    return good.requests.length >= times
  }
  await told(1)
  void teller.settled().then(() => (isOver = true))
  await waitFor(() => told(3), { what: 'the good server, again and again', timeoutMs: 60_000 })
  await waitFor(() => held.length > 0, { what: 'the call that is not answered', timeoutMs: 60_000 })
  assert.deepEqual([isOver, held.length], [false, 1], 'who is still being told is left out')
  for (const socket of held) socket.destroy()
  await node.api('DELETE', `${path}/held`)
  await teller.settled()
  await node.api('POST', `${path}/never`, { ...http, port: never, timeout: 1 })
  for (let count = 0; count < 2; count += 1) await round()
  for (const socket of held) socket.destroy()
  const said = lines.map((line) => JSON.parse(line) as { message: string; id: string; reason: string })
  const warnings = said.filter(({ message }) => message === 'a metric server does not take what it is told')
  assert.deepEqual(warnings.map(({ id }) => id).toSorted(), ['angry', 'closed', 'held', 'never', 'nowhere'])
  assert.match(warnings.find(({ id }) => id === 'never')?.reason ?? '', /does not answer within 1 s/)
  assert.match(warnings.find(({ id }) => id === 'angry')?.reason ?? '', /answers 500/)
  for (const id of ['never', 'angry', 'nowhere', 'closed', 'off', 'good']) await node.api('DELETE', `${path}/${id}`)
})

test('what does not belong together is refused by name', async () => {
  const { api } = node
  const place = { server: '192.0.2.1', port: 2003, disable: 1 }
  const refused: [Record<string, unknown>, RegExp][] = [
    [{ ...place, type: 'graphite', token: 'x' }, /a server of type 'graphite' has no 'token'/],
    [{ ...place, type: 'influxdb', path: 'x' }, /a server of type 'influxdb' has no 'path'/],
    [{ ...place, type: 'opentelemetry', 'otel-headers': '{"a":1}' }, /give a JSON object of texts/],
    [
      { ...place, type: 'opentelemetry', 'otel-headers': JSON.stringify({ a: 'b\r\nc: d' }) },
      /give a JSON object of texts/,
    ],
    [{ ...place, type: 'graphite', port: 65_536 }, /the last port is 65535/],
  ]
  const isRefused = (complaint: RegExp) => (fault: { fields?: object }) => complaint.test(JSON.stringify(fault.fields))
  for (const [params, complaint] of refused) {
    await assert.rejects(api('POST', `${path}/wrong`, params), isRefused(complaint))
  }
  await api('POST', `${path}/kept`, { ...place, type: 'graphite' })
  await assert.rejects(
    api('POST', `${path}/kept`, { ...place, type: 'graphite' }),
    /metric server 'kept' already exists/,
  )
  await assert.rejects(api('GET', `${path}/gone`), /metric server 'gone' does not exist/)
  const { digest } = (await api('GET', `${path}/kept`)).data as { digest: string }
  await api('PUT', `${path}/kept`, { ...place, port: 2004, digest })
  await assert.rejects(api('PUT', `${path}/kept`, { ...place, digest }), /detected modified configuration/)
  await assert.rejects(api('PUT', `${path}/kept`, { ...place, delete: 'server' }), isRefused(/needs its 'server'/))
  assert.deepEqual((await api('GET', path)).data, [
    { id: 'kept', type: 'graphite', server: '192.0.2.1', port: 2004, disable: 1 },
  ])
  await api('DELETE', `${path}/kept`)
  await assert.rejects(api('DELETE', `${path}/kept`), /does not exist/)
})
