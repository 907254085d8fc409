/** Another Hakobune over TLS. */
import assert from 'node:assert/strict'
import { createHash, randomBytes, randomInt } from 'node:crypto'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { breakingWay } from '../../../../test/fixtures/bad-way.ts'
import { deps, disk, memorySource } from '../../../../test/fixtures/datastore.ts'
import { openBelow } from '../../../../test/fixtures/open-below.ts'
import { placeServer } from '../../../../test/fixtures/place-server.ts'
import {
  backUp,
  makeDatastoreIn,
  point,
  restored,
  secret,
  temporaryDatastore,
} from '../../../../test/fixtures/sealed-datastore.ts'
import { freePort } from '../../../../test/own-names.ts'
import { tryCanary } from '../../locks/canary.ts'
import { placeConformance } from '../conformance.ts'
import { openDatastore } from '../../datastore.ts'
import { collectGarbage } from '../../collect/garbage.ts'
import { HttpsPlace } from './place.ts'
import { leaseSeconds } from '../lease.ts'
import { manifestName } from '../../points/manifest.ts'
import type { Right } from './tokens.ts'
import { seal } from '../../sealed.ts'
import { syncDatastore } from '../../copy/sync.ts'
import { verifyBackup, verifyPacks } from '../../verify/verify.ts'

const server = await placeServer()
after(() => server[Symbol.asyncDispose]())
let made = 0
const fresh = () => `site${(made += 1)}`
const isDenied = (fault: unknown) => isFault(fault, 'denied')

placeConformance('another Hakobune', async () => ({ https: server.reach(fresh()) }))

async function openAs(name: string, rights: readonly Right[]) {
  const place = await HttpsPlace.open(server.reach(name, rights), deps)
  return { place, open: async () => (await openDatastore(place, deps)).unlock(secret), [Symbol.asyncDispose]: () => place[Symbol.asyncDispose]() } // prettier-ignore
}

test('a token that only adds makes backups, and can neither remove, replace, forge nor read what is there', async () => {
  const name = fresh()
  await using made = await makeDatastoreIn({ https: server.reach(name) })
  const content = disk('rt.r')
  await backUp(await made.reopen(), point(0), { scsi0: content })
  await using writer = await openAs(name, ['write'])
  const open = await writer.open()
  assert.equal((await backUp(open, point(1), { scsi0: content })).disks[0]?.newChunks, 0)
  const { place } = writer
  const manifest = manifestName(point(0))
  const text = (await place.get(manifest, 1_000_000)) ?? Buffer.alloc(0)
  const packs: string[] = []
  for await (const one of place.list('packs/')) packs.push(one.name)
  const [pack = ''] = packs
  const staged = join(place.stagingDir, 'false')
  const refused: Readonly<Record<string, () => Promise<unknown>>> = {
    'removes a backup': () => open.datastore.remove(point(0)),
    'removes a pack': () => place.remove(pack),
    'replaces a backup': () => place.replace(manifest, text),
    'changes notes': () => open.datastore.mark(point(0), { protected: false }),
    'changes keys': () => place.put('keys/00000099', Buffer.from('x')),
    'replaces the description': () => place.replace('format', Buffer.from('x')),
    condemns: () => place.put('condemned/x', Buffer.alloc(16)),
    'reads a pack': () => place.read(pack, 0, 10),
    'forges a backup': () => place.put(manifestName(point(7)), Buffer.from(text.toString('utf8'))),
    collects: () => collectGarbage(open),
  }
  for (const [what, act] of Object.entries(refused)) {
    await assert.rejects(act, (fault) => isFault(fault, 'denied') || isFault(fault, 'damaged'), what)
  }
  await assert.rejects(place.put('elsewhere/x', Buffer.alloc(1)), /not the name of anything in a datastore/)
  await writeFile(staged, randomBytes(100))
  const other = createHash('sha256').update('something else').digest('hex')
  await assert.rejects(
    place.putFile(`packs/${other.slice(0, 2)}/${other}`, staged),
    /what arrived for .* is not what was sent/,
  )
  // Somebody else's lease keeps their chunks from being collected.
  await using owner = await openAs(name, ['read', 'write', 'delete'])
  await owner.place.replace('leases/theirs', Buffer.from(seal({ kind: 'write', began: 1, renewed: 1, by: 'them' })))
  await assert.rejects(place.remove('leases/theirs'), isDenied)
  await assert.rejects(place.replace('leases/theirs', Buffer.from('x')), isDenied)
  assert.ok((await tryCanary(open.datastore)).isSafe)
  assert.equal((await tryCanary((await owner.open()).datastore)).isSafe, false)
  await using reader = await openAs(name, ['read'])
  const read = await reader.open()
  for (const one of [point(0), point(1)]) assert.ok((await restored(read, one, 'scsi0')).equals(content))
  await verifyBackup(read, point(0))
  assert.deepEqual((await verifyPacks(read.datastore)).damaged, [])
  await assert.rejects(backUp(read, point(2), { scsi0: content }), isDenied)
})

/** Takes every connection, and says nothing. */
async function listening(): Promise<AsyncDisposable & { readonly port: number }> {
  const port = await freePort()
  const sockets = new Set<Socket>()
  const deaf = createServer((socket) => sockets.add(socket.on('error', () => {})))
  deaf.listen(port, '127.0.0.1')
  await once(deaf, 'listening')
  return {
    port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      deaf.close()
      await once(deaf, 'close')
    },
  }
}

test('who is not known, or speaks to the wrong server, is told so, and no token goes to a stranger', async () => {
  const name = fresh()
  const right = server.reach(name)
  const token = 'A'.repeat(43)
  const quick = { attempts: 1 }
  await assert.rejects(HttpsPlace.open({ ...right, ...quick, token }, deps), /does not know the token/)
  const fingerprint = '0'.repeat(64)
  await assert.rejects(
    HttpsPlace.open({ ...right, ...quick, fingerprint }, deps),
    /is another than the one that was named/,
  )
  await assert.rejects(HttpsPlace.open({ ...right, ...quick, fingerprint: undefined }, deps), /is not trusted/)
  await assert.rejects(HttpsPlace.open({ ...right, url: 'http://127.0.0.1/x' }, deps), /is no datastore of a server/)
  const clock = { ...deps.clock, now: () => deps.clock.now() - 3_600_000 }
  await using late = await HttpsPlace.open(right, { ...deps, clock })
  await assert.rejects(late.put('keys/00000001', Buffer.from('x')), /the clock of this machine and that of/)
  await using deaf = await listening()
  const silent = { ...right, ...quick, url: `https://127.0.0.1:${deaf.port}/x`, idleMs: 100 }
  await assert.rejects(HttpsPlace.open(silent, deps), /did not answer in time/)
  await assert.rejects(openAs(fresh(), ['read']), (fault) => isFault(fault, 'missing'))
})

test('a copy is made over a way that breaks all the time, only once for each pack', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rrrrrrrrrrrrrrrrrrrrrrrr')
  await backUp(await temporary.reopen(), point(0, '100', 'office'), { scsi0: content })
  await backUp(await temporary.reopen(), point(0, '101', 'shop'), { scsi0: disk('rr') })
  const source = (await temporary.reopen()).datastore
  const reach = server.reach(fresh(), ['write'])
  // Long enough for the largest pack once in a while.
  await using way = await breakingWay(Number(new URL(reach.url).port), () => randomInt(100_000, 8_000_000))
  const url = reach.url.replace(/:\d+\//, `:${way.port}/`)
  await using place = await HttpsPlace.open({ ...reach, url, attempts: 30, firstWaitMs: 2 }, deps)
  assert.equal((await syncDatastore(source, place, deps, { namespace: 'office' })).backups, 1)
  assert.deepEqual(await syncDatastore(source, place, deps, { namespace: 'office' }), { backups: 0, removed: 0, packs: 0, bytes: 0 }) // prettier-ignore
  await using reader = await openAs(reach.url.split('/').at(-1) ?? '', ['read', 'write', 'delete'])
  const open = await reader.open()
  await verifyBackup(open, point(0, '100', 'office'))
  assert.ok((await restored(open, point(0, '100', 'office'), 'scsi0')).equals(content))
})

test('a lease is given back by who holds it with any right, also to a server that was started anew, and by nobody else', async () => {
  const name = fresh()
  await using made = await makeDatastoreIn({ https: server.reach(name) })
  await backUp(await made.reopen(), point(0), { scsi0: disk('r') })
  const leases = async () => readdirSync(join(server.folder, name, 'leases')).filter((one) => !one.endsWith('.held'))
  for (const right of ['write', 'read'] as const) {
    await using holder = await openAs(name, [right])
    await using other = await openAs(name, [right])
    const { datastore } = await holder.open()
    const lease = await datastore.lease(right, right === 'read' ? point(0) : undefined)
    const [held = ''] = await leases()
    await server.restart()
    const text = (await other.place.get(`leases/${held}`, 4_096)) ?? Buffer.alloc(0)
    await assert.rejects(other.place.remove(`leases/${held}`), isDenied)
    await assert.rejects(other.place.replace(`leases/${held}`, text), isDenied)
    assert.deepEqual(await leases(), [held])
    await lease[Symbol.asyncDispose]()
    assert.deepEqual(await leases(), [])
  }
})

test('a server that goes in the middle is said; one that comes back knows what was begun, and the backup ends whole', async () => {
  await using made = await makeDatastoreIn({ https: { ...server.reach(fresh()), attempts: 2, firstWaitMs: 5 } })
  const content = disk('rrrr')
  const open = await made.reopen()
  {
    await using writer = await open.begin(point(0))
    await writer.addDisk('scsi0', memorySource(content))
    await server.stop()
    await assert.rejects(writer.commit(), /could not reach 'https:\S+': ECONN\w+ \(tried 2 times\)/)
    await server.restart()
  }
  assert.deepEqual(await open.datastore.points(), [])
  await using writer = await open.begin(point(1))
  await writer.addDisk('scsi0', memorySource(content))
  await server.restart()
  await writer.commit()
  assert.ok((await restored(await made.reopen(), point(1), 'scsi0')).equals(content))
})

test('many who come at once to a server that has just begun share what it opens, and nothing stays open', async () => {
  const name = fresh()
  await using made = await makeDatastoreIn({ https: server.reach(name) })
  await backUp(await made.reopen(), point(0), { scsi0: disk('r') })
  await using place = await HttpsPlace.open(server.reach(name), deps)
  const packs = (await Array.fromAsync(place.list('packs/'))).map((one) => one.name)
  await server.restart()
  await Promise.all(Array.from({ length: 16 }, (_, at) => place.read(packs[at % packs.length] ?? '', 0, 48)))
  await server.restart()
  assert.deepEqual(openBelow(server.folder), [])
})

test('who slept for longer than a lease lasts makes no backup of what was collected meanwhile; a nap does no harm', async () => {
  const name = fresh()
  await using made = await makeDatastoreIn({ https: server.reach(name) })
  const content = disk('rrrr')
  await backUp(await made.reopen(), point(0), { scsi0: content })
  let sleptMs = 0
  const clock = { ...deps.clock, now: () => deps.clock.now() + sleptMs }
  await using place = await HttpsPlace.open(server.reach(name), deps)
  const sleeper = async () => (await openDatastore(place, { ...deps, clock })).unlock(secret)
  const asleep = async (seconds: number, meanwhile: () => Promise<void> = async () => {}) => {
    const open = await sleeper()
    await using writer = await open.begin(point(1))
    await writer.addDisk('scsi0', memorySource(content))
    sleptMs += seconds * 1000
    await meanwhile()
    await writer.commit()
  }
  const isMissed = (fault: unknown) =>
    isFault(fault, 'unavailable') && /nobody in .* has heard of this/.test(fault.message)
  await assert.rejects(asleep(leaseSeconds + 1), isMissed)
  const collected = async () => {
    const owner = await sleeper()
    await owner.datastore.remove(point(0))
    assert.equal((await collectGarbage(owner)).waitsFor, undefined)
  }
  await assert.rejects(asleep(leaseSeconds + 1, collected), isMissed)
  const { datastore } = await sleeper()
  assert.deepEqual(await datastore.points(), [])
  await asleep(leaseSeconds - 1)
  await verifyBackup(await sleeper(), point(1))
})
