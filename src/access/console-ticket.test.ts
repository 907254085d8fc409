import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { systemRandom } from '#base/random.ts'
import { type ConsoleClaim, isConsoleTicket, writeConsoleTicket } from './console-ticket.ts'
import { type Keys, Keyring } from './keyring.ts'
import { readTicket, writeTicket } from './ticket.ts'

let directory: string
let keys: Keys
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'hako-console-ticket-'))
  keys = await new Keyring({ directory, clock: systemClock, random: systemRandom }).current()
})
after(() => rm(directory, { recursive: true }))

const now = 1_800_000_000
const claim: ConsoleClaim = { authId: 'bob@pve', path: '/vms/100', port: 5900 }

test('a ticket has the shape clients know, with the password of the screen in front', () => {
  assert.match(writeConsoleTicket(keys, claim, now), /^PVEVNC:6B49D200::[A-Za-z0-9+/]{86}==$/)
  const ticket = writeConsoleTicket(keys, claim, now, 'abcdEFG2')
  assert.match(ticket, /^abcdEFG2:PVEVNC:6B49D200::/)
  assert.ok(ticket.length <= 512)
  assert.ok(isConsoleTicket(keys, ticket, claim, now))
})

test('it holds for 40 seconds, for this user, path and port, and with its own password', () => {
  const ticket = writeConsoleTicket(keys, claim, now, 'abcdEFG2')
  const holds = (text: string, changes: Partial<ConsoleClaim> = {}, at = now) =>
    isConsoleTicket(keys, text, { ...claim, ...changes }, at)
  assert.ok(holds(ticket, {}, now + 39))
  assert.equal(holds(ticket, {}, now + 40), false)
  assert.equal(holds(ticket, {}, now - 301), false)
  const others: Partial<ConsoleClaim>[] = [
    { authId: 'bob@pve!t' },
    { path: '/vms/101' },
    { path: '/vms/100/' },
    { port: 5901 },
    { port: undefined },
  ]
  for (const other of others) assert.equal(holds(ticket, other), false, JSON.stringify(other))
  const wrong = [
    ticket.slice('abcdEFG2:'.length),
    ticket.replace('abcdEFG2', 'abcdEFG3'),
    ticket.replace('6B49D200', '6B49D201'),
    `${ticket}=`,
    ` ${ticket}`,
    ticket.padEnd(513, 'A'),
    '',
  ]
  for (const text of wrong) assert.equal(holds(text), false, text)
})

test('a ticket for the login opens no console, and a console ticket is no login', () => {
  const login = writeTicket(keys, 'bob@pve', now)
  assert.equal(isConsoleTicket(keys, login, claim, now), false)
  assert.equal(isConsoleTicket(keys, login.replace('PVE:bob@pve', 'PVEVNC'), claim, now), false)
  const console = writeConsoleTicket(keys, claim, now)
  assert.equal(readTicket(keys, console, now), undefined)
  assert.equal(readTicket(keys, console.replace('PVEVNC', 'PVE:bob@pve'), now), undefined)
})
