import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { accessLimits } from './limits.ts'
import { HeldClock } from './small-world.ts'
import { LoginThrottle, networkOf } from './throttle.ts'
import { Turnstile } from './turnstile.ts'

const { perUser, perAddress } = accessLimits.login

/** How many of `count` failing attempts are admitted. */
function guess(throttle: LoginThrottle, count: number, of: (n: number) => readonly [string, string]): number {
  return Array.from({ length: count }, (_, n) => throttle.admit(...of(n))).filter(Boolean).length
}

test('one user is guessed at only so often, from however many addresses', () => {
  const clock = new HeldClock()
  const throttle = new LoginThrottle(clock)
  assert.equal(
    guess(throttle, 100, (n) => ['bob@pve', `10.0.0.${n}`]),
    perUser.burst,
  )
  clock.pass(perUser.everyMs * 3)
  assert.equal(
    guess(throttle, 100, (n) => ['bob@pve', `10.0.1.${n}`]),
    3,
  )
})

test('one address guesses only so often, at however many users', () => {
  const throttle = new LoginThrottle(new HeldClock())
  assert.equal(
    guess(throttle, 100, (n) => [`user${n}@pve`, '10.0.0.1']),
    perAddress.burst,
  )
})

test('the owner still logs in from a known address while a stranger guesses', () => {
  const throttle = new LoginThrottle(new HeldClock())
  assert.ok(throttle.admit('bob@pve', '192.0.2.7'))
  throttle.succeeded('bob@pve', '192.0.2.7')
  guess(throttle, 100, (n) => ['bob@pve', `10.0.0.${n}`])
  assert.ok(!throttle.admit('bob@pve', '10.9.9.9'))
  assert.ok(throttle.admit('bob@pve', '192.0.2.7'))
})

test('successes of the owner do not pay for guesses of a stranger', () => {
  const throttle = new LoginThrottle(new HeldClock())
  let guesses = 0
  for (let round = 0; round < 50; round += 1) {
    if (throttle.admit('bob@pve', '192.0.2.7')) throttle.succeeded('bob@pve', '192.0.2.7')
    guesses += guess(throttle, 5, (n) => ['bob@pve', `10.0.${round}.${n}`])
  }
  assert.equal(guesses, perUser.burst)
})

test("a guesser's own account does not pay for guesses at others", () => {
  const throttle = new LoginThrottle(new HeldClock())
  let guesses = 0
  for (let round = 0; round < 100; round += 1) {
    if (throttle.admit('eve@pve', '10.0.0.1')) throttle.succeeded('eve@pve', '10.0.0.1')
    guesses += guess(throttle, 1, () => [`user${round}@pve`, '10.0.0.1'])
  }
  assert.equal(guesses, perAddress.burst)
})

test('any number of good logins in a row is fine', () => {
  const throttle = new LoginThrottle(new HeldClock())
  for (let n = 0; n < 200; n += 1) {
    assert.ok(throttle.admit('bob@pve', '192.0.2.7'))
    throttle.succeeded('bob@pve', '192.0.2.7')
  }
})

test('an IPv6 network counts as one address, and a mapped IPv4 address as itself', () => {
  assert.equal(networkOf('2001:db8:1:2:aaaa::1'), networkOf('2001:db8:1:2:bbbb:cccc:1:2'))
  assert.notEqual(networkOf('2001:db8:1:2::1'), networkOf('2001:db8:1:3::1'))
  assert.equal(networkOf('2001:0DB8::1'), '2001:db8:0:0::/64')
  assert.equal(networkOf('::1'), '0:0:0:0::/64')
  assert.equal(networkOf('fe80::1%eth0'), 'fe80:0:0:0::/64')
  assert.equal(networkOf('::ffff:192.0.2.7'), '192.0.2.7')
  assert.equal(networkOf('192.0.2.7'), '192.0.2.7')
  assert.equal(networkOf(''), '')
})

test('a turnstile lets a few in, has a few wait, and sends the rest away', async () => {
  const turnstile = new Turnstile({ atOnce: 2, waiting: 3 })
  const gates: (() => void)[] = []
  let [inside, most] = [0, 0]
  const enter = () =>
    turnstile.pass(async () => {
      inside += 1
      most = Math.max(most, inside)
      await new Promise<void>((resolve) => gates.push(resolve))
      inside -= 1
    })
  const five = Array.from({ length: 5 }, enter)
  await assert.rejects(enter(), (error) => isFault(error, 'exhausted'))
  let opened = 0
  while (opened < 5) {
    gates.shift()?.()
    opened += 1
    await new Promise(setImmediate)
  }
  await Promise.all(five)
  assert.equal(most, 2)
  await assert.rejects(
    turnstile.pass(async () => assert.fail('work may fail')),
    /work may fail/,
  )
  await turnstile.pass(async () => {})
})
