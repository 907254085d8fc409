import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { systemRandom } from '#base/random.ts'
import { isConsoleTicket, writeConsoleTicket } from './console-ticket.ts'
import { type Keys, Keyring } from './keyring.ts'
import { subjectOfSpiceTicket, isSpiceTicket, type SpiceClaim, writeSpiceTicket } from './spice-ticket.ts'

let directory: string
let keys: Keys
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hako-spice-ticket-'))
  keys = await new Keyring({ directory, clock: systemClock, random: systemRandom }).current()
})
after(() => rm(directory, { recursive: true }))

const now = 1_800_000_000
const claim: SpiceClaim = { authId: 'bob@pve!token', path: '/vms/100', port: 5900 }

test('a ticket looks like the name of a host, and says which guest it is for', () => {
  const ticket = writeSpiceTicket(keys, { ...claim, path: '/vms/999999999' }, 999_999_999, now)
  assert.ok(ticket.length <= 253)
  for (const part of ticket.split('.')) assert.match(part, /^[a-z0-9]{1,63}$/)
  assert.equal(subjectOfSpiceTicket(ticket), 999_999_999)
  for (const text of ['', 'a.spice', ticket.toUpperCase(), `${ticket}.`])
    assert.equal(subjectOfSpiceTicket(text), undefined)
})

test('it holds for 40 seconds, for this user, guest and number, and unchanged', () => {
  const ticket = writeSpiceTicket(keys, claim, 100, now)
  const holds = (text: string, changes: Partial<SpiceClaim> = {}, at = now) =>
    isSpiceTicket(keys, text, { ...claim, ...changes }, at)
  assert.ok(holds(ticket, {}, now + 39))
  assert.equal(holds(ticket, {}, now + 40), false)
  assert.equal(holds(ticket, {}, now - 301), false)
  for (const other of [{ authId: 'bob@pve' }, { path: '/vms/101' }, { port: 5901 }]) {
    assert.equal(holds(ticket, other), false, JSON.stringify(other))
  }
  const last = ticket.at(-'.spice'.length - 1)
  const changed = ticket.replace(new RegExp(`${last}\\.spice$`), `${last === 'a' ? 'q' : 'a'}.spice`)
  for (const text of [ticket.replace('6b49d200', '6b49d201'), changed, `${ticket}x`, ` ${ticket}`, '']) {
    assert.equal(holds(text), false, text)
  }
})

test('it is no ticket for another console, and none of those is one', () => {
  const spice = writeSpiceTicket(keys, claim, 100, now)
  assert.equal(isConsoleTicket(keys, spice, claim, now), false)
  assert.equal(isSpiceTicket(keys, writeConsoleTicket(keys, claim, now), claim, now), false)
})
