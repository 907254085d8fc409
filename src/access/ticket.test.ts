import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { csrfTokenHolds, writeCsrfToken } from './csrf.ts'
import { Keyring } from './keyring.ts'
import { HeldClock } from './small-world.ts'
import { readTicket, writeTicket } from './ticket.ts'

const now = 1_795_000_000
const hour = 3600
const day = 24 * hour * 1000

async function keysIn(t: TestContext, clock = new HeldClock(now * 1000)) {
  const directory = await mkdtemp(join(tmpdir(), 'hako-keys-'))
  t.after(() => rm(directory, { recursive: true }))
  const open = () => new Keyring({ directory, clock, random: systemRandom })
  return { directory, clock, open, ring: open() }
}

test('a ticket has the form clients expect, and names its user and time', async (t) => {
  const keys = await (await keysIn(t)).ring.current()
  const ticket = writeTicket(keys, 'bob@pve', now)
  assert.match(ticket, /^PVE:bob@pve:6AFD86C0::[A-Za-z0-9+/]+={0,2}$/)
  assert.equal(readTicket(keys, ticket, now), 'bob@pve')
})

test('a ticket holds for two hours, and for five minutes before its time', async (t) => {
  const keys = await (await keysIn(t)).ring.current()
  const ticket = writeTicket(keys, 'bob@pve', now)
  assert.equal(readTicket(keys, ticket, now + 2 * hour - 1), 'bob@pve')
  assert.equal(readTicket(keys, ticket, now + 2 * hour), undefined)
  assert.equal(readTicket(keys, ticket, now - 300), 'bob@pve')
  assert.equal(readTicket(keys, ticket, now - 301), undefined)
})

test('no other text than the ticket itself is a ticket', async (t) => {
  const keys = await (await keysIn(t)).ring.current()
  const ticket = writeTicket(keys, 'bob@pve', now)
  fc.assert(
    fc.property(fc.nat(ticket.length - 1), fc.string({ minLength: 1, maxLength: 1 }), (at, other) => {
      fc.pre(ticket[at] !== other)
      assert.equal(readTicket(keys, ticket.slice(0, at) + other + ticket.slice(at + 1), now), undefined)
    }),
    { numRuns: 500 },
  )
  assert.equal(readTicket(keys, `${ticket}A`, now), undefined)
  assert.equal(readTicket(keys, `${ticket}\n`, now), undefined)
  assert.equal(readTicket(keys, '', now), undefined)
})

test('a CSRF token is bound to its user and ends with the ticket', async (t) => {
  const keys = await (await keysIn(t)).ring.current()
  const token = writeCsrfToken(keys, 'bob@pve', now)
  assert.match(token, /^[0-9A-F]{8}:[A-Za-z0-9+/]{43}=$/)
  assert.ok(csrfTokenHolds(keys, 'bob@pve', token, now + 2 * hour - 1))
  assert.ok(!csrfTokenHolds(keys, 'bob@pve', token, now + 2 * hour))
  assert.ok(!csrfTokenHolds(keys, 'eve@pve', token, now))
  assert.ok(!csrfTokenHolds(keys, 'bob@pve', token.replace(/^......../, '6AFD86C1'), now))
  assert.ok(!csrfTokenHolds(keys, 'bob@pve', '', now))
})

test('the keys are one file that only root reads, and outlive the process', async (t) => {
  const { ring, open, directory } = await keysIn(t)
  const ticket = writeTicket(await ring.current(), 'bob@pve', now)
  assert.deepEqual(await readdir(directory), ['login-keys.json'])
  assert.equal((await stat(join(directory, 'login-keys.json'))).mode & 0o777, 0o600)
  assert.equal(readTicket(await open().current(), ticket, now), 'bob@pve')
})

test('keys change every 24 hours, and what the key before signed stays valid', async (t) => {
  const { ring, clock, directory } = await keysIn(t)
  const first = await ring.current()
  clock.pass(day - 1000)
  const lastOfFirst = writeTicket(await ring.current(), 'bob@pve', clock.now() / 1000)
  clock.pass(1000)
  const second = await ring.current()
  const ofSecond = writeTicket(second, 'bob@pve', clock.now() / 1000)
  assert.equal(readTicket(second, lastOfFirst, clock.now() / 1000), 'bob@pve')
  assert.equal(readTicket(first, ofSecond, clock.now() / 1000), undefined)
  clock.pass(day)
  const third = await ring.current()
  const forged = writeTicket(first, 'bob@pve', clock.now() / 1000)
  assert.equal(readTicket(third, forged, clock.now() / 1000), undefined)
  const kept = JSON.parse(await readFile(join(directory, 'login-keys.json'), 'utf8')) as { pairs: unknown[] }
  assert.equal(kept.pairs.length, 2)
})

test('twenty requests at the first moment share one key', async (t) => {
  const { ring } = await keysIn(t)
  const all = await Promise.all(Array.from({ length: 20 }, () => ring.current()))
  assert.equal(new Set(all).size, 1)
})

test('a damaged key file is named with what to do, and without what is in it', async (t) => {
  const { open, directory } = await keysIn(t)
  const path = join(directory, 'login-keys.json')
  for (const content of [
    '{"version":1,"pairs":[{"ticketSeed":"c2VjcmV0',
    '{"version":2,"pairs":[]}',
    '7',
    '{"version":1,"pairs":[{}]}',
  ]) {
    await writeFile(path, content)
    await assert.rejects(open().current(), (error) => {
      assert.ok(isFault(error, 'damaged'), content)
      assert.match(error.message, /login-keys\.json/)
      assert.match(error.remedy ?? '', /Delete the file/)
      assert.doesNotMatch(JSON.stringify([error.message, error.remedy, String(error.cause)]), /c2VjcmV0/)
      return true
    })
  }
})
