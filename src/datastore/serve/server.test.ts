/** What others send to a server of datastores, and what that costs it. */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { ClientRequest, IncomingMessage } from 'node:http'
import { request } from 'node:https'
import { setTimeout as wait } from 'node:timers/promises'
import { after, test } from 'node:test'
import { KiB, MiB } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { deps } from '../../../test/fixtures/datastore.ts'
import { placeServer } from '../../../test/fixtures/place-server.ts'
import { makeDatastoreIn, point } from '../../../test/fixtures/sealed-datastore.ts'
import { manifestName, printManifest } from '../points/manifest.ts'
import { seal } from '../sealed.ts'
import { leaseHeader, leaseIdOf } from '../places/https/lease-secret.ts'
import { HttpsPlace } from '../places/https/place.ts'
import type { Right } from '../places/https/tokens.ts'

const server = await placeServer()
after(() => server[Symbol.asyncDispose]())
const site = 'site'
await using made = await makeDatastoreIn({ https: server.reach(site) })
const part = Buffer.alloc(MiB)

/** Begun, and not ended before somebody says so. */
function put(name: string, rights: readonly Right[], size: number, more = {}): ClientRequest {
  const { url, token } = server.reach(site, rights)
  const headers = {
    Authorization: `Bearer ${token}`,
    'Content-Length': size,
    'If-None-Match': '*',
    'X-Digest': '0'.repeat(64),
    ...more,
  }
  const asked = request(url.replace(`/${site}`, `/v1/${site}/objects/${name}`), {
    method: 'PUT',
    rejectUnauthorized: false,
    headers,
  })
  asked.flushHeaders()
  return asked
}

/** All but the last of its bytes. */
async function sendMost(asked: ClientRequest, size: number): Promise<void> {
  for (let sent = 0; sent < size - part.length; sent += part.length) {
    if (!asked.write(part)) await once(asked, 'drain')
  }
}

async function statusOf(asked: ClientRequest): Promise<number | undefined> {
  const [response] = (await once(asked, 'response')) as [IncomingMessage]
  response.resume()
  return response.statusCode
}

test('what the token has no right to is refused before any of it is sent', async () => {
  const begun: readonly (readonly [string, readonly Right[]])[] = [
    ['condemned/1', ['read']],
    ['checked', ['read']],
    [manifestName(point(1)), ['read']],
    ['condemned/1', ['write']],
    ['keys/00000007', ['write']],
    ['marks/no/such/backup', ['read']],
  ]
  for (const [name, rights] of begun) {
    const asked = put(name, rights, 10 * KiB)
    assert.equal(await statusOf(asked), 403, `${name} by ${rights.join()}`)
    asked.destroy()
  }
  const nameless = put('backups/nothing', ['write'], 10 * KiB)
  assert.equal(await statusOf(nameless), 400)
  nameless.destroy()
})

test('what is large and not over yet is in nobody’s memory, however many send', async () => {
  const size = 64 * MiB
  const before = process.memoryUsage().arrayBuffers
  const asked = [1, 2, 3].map((time) => put(manifestName(point(time)), ['write'], size))
  const ended = Promise.allSettled(asked.map((one) => once(one, 'error')))
  await Promise.all(asked.map((one) => sendMost(one, size)))
  await wait(200)
  const grown = process.memoryUsage().arrayBuffers - before
  assert.ok(grown < size, `${Math.round(grown / MiB)} MiB more`)
  for (const one of asked) one.destroy(new Error('enough'))
  await ended
})

test('what is large arrives whole, once for a name, and only where it is what the token may put', async () => {
  const open = await made.reopen()
  const head = { point: point(5), pointInTime: '2026-11-20T10:00:00.000Z', finished: point(5).time }
  const body = { disks: [], trees: [], files: [], facts: { padding: randomBytes(MiB).toString('base64') } }
  const text = Buffer.from(printManifest(open.keyring, systemRandom, head, body))
  assert.ok(text.length > MiB)
  await using place = await HttpsPlace.open(server.reach(site, ['read', 'write']), deps)
  const name = manifestName(point(5))
  const other = manifestName(point(6))
  await assert.rejects(place.put(other, text), (fault) => isFault(fault, 'damaged'))
  const changed = Buffer.from(text.toString('utf8').replace('"finished":', '"finished": '))
  await assert.rejects(place.put(name, changed), (fault) => isFault(fault, 'damaged'))
  const put = await Promise.all(Array.from({ length: 4 }, () => place.put(name, text)))
  assert.equal(put.filter(Boolean).length, 1)
  assert.deepEqual(await place.get(name, text.length), text)
  await using owner = await HttpsPlace.open(server.reach(site), deps)
  const checked = randomBytes(3 * MiB)
  await owner.replace('checked', checked)
  assert.deepEqual(await owner.get('checked', checked.length), checked)
  assert.deepEqual(await Array.fromAsync(owner.list('tmp/')), [])
})

test('a token that only reads says so by a lease of its own, and by that name nothing else', async () => {
  const secret = '1'.repeat(64)
  const name = `leases/${leaseIdOf(secret)}`
  const lease = (kind: string) => Buffer.from(seal({ kind, began: 1, renewed: 1, by: 'somebody' }))
  const { place } = (await made.reopen()).datastore
  for (const [kind, status] of [
    ['write', 403],
    ['read', 201],
  ] as const) {
    const content = lease(kind)
    const asked = put(name, ['read'], content.length, {
      [leaseHeader]: secret,
      'X-Digest': createHash('sha256').update(content).digest('hex'),
    })
    asked.end(content)
    assert.equal(await statusOf(asked), status)
    assert.equal((await place.get(name, KiB)) !== undefined, kind === 'read')
  }
})
