import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { SoftwareKey } from '../../../test/fixtures/software-key.ts'
import { accessLimits } from '../limits.ts'
import {
  bob,
  bobsPassword,
  give,
  invalidField,
  rootInPerson,
  smallWorld,
  type SmallWorld,
  worldOf,
} from '../small-world.ts'
import { readOtpauth, totpCode } from './totp.ts'

const address = '192.0.2.7'
const uri = 'otpauth://totp/Hakobune:bob%40pve?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ'
const read = readOtpauth(uri)
const settings = read.ok ? read.value : assert.fail(read.complaint)
const step = 30_000

/** What the app shows now, or so many steps from now. */
function code({ clock }: SmallWorld, away = 0): string {
  return totpCode(settings, Math.floor(clock.now() / step) + away)
}
const act = { who: rootInPerson, userid: 'bob@pve', address }

async function worldWithApp(): Promise<SmallWorld> {
  const world = await worldOf('bob@pve', 'eve@pve')
  await world.access.tfa.add(act, { type: 'totp', totp: uri, value: code(world) })
  // The code that proved the app is spent.
  world.clock.pass(step)
  return world
}

/** The first step; the half of a ticket it gives. */
async function firstStep({ access }: SmallWorld, username = 'bob@pve'): Promise<string> {
  const reply = await access.login({ username, password: bobsPassword, address })
  assert.equal(reply.NeedTFA, 1)
  assert.equal(reply.cap, undefined)
  return reply.ticket ?? ''
}

/** Both steps. */
async function logIn(world: SmallWorld, answer: string, username = 'bob@pve') {
  const tfaChallenge = await firstStep(world, username)
  return world.access.login({ username, password: answer, tfaChallenge, address })
}

const refusal = (error: unknown) => isFault(error, 'unauthenticated') && error.message === 'authentication failure'

function challengeIn(halfTicket: string): { totp?: boolean; recovery?: number[]; webauthn?: { publicKey: never } } {
  const encoded = /^PVE:!tfa!([^:]+):[0-9A-F]{8}::/.exec(halfTicket)?.[1] ?? assert.fail(halfTicket)
  return JSON.parse(decodeURIComponent(encoded)) as ReturnType<typeof challengeIn>
}

test('with an app a password opens half a door, and its code the other half', async () => {
  await using world = await worldWithApp()
  const { access } = world
  const half = await firstStep(world)
  assert.deepEqual(challengeIn(half), { totp: true })
  await assert.rejects(access.ticketIdentity(half), { message: 'permission denied - invalid PVE ticket' })
  const reply = await access.login({
    username: 'bob',
    realm: 'pve',
    password: `totp:${code(world)}`,
    tfaChallenge: half,
    address,
  })
  assert.equal(reply.NeedTFA, undefined)
  assert.deepEqual(await access.ticketIdentity(reply.ticket ?? ''), bob)
  // A ticket renews itself, and is not asked again.
  const renewed = await access.login({ username: 'bob@pve', password: reply.ticket ?? '', address })
  assert.deepEqual(await access.ticketIdentity(renewed.ticket ?? ''), bob)
})

test('a code is good once: not in the next minute, not for another log-in, not from a second process', async () => {
  await using world = await worldWithApp()
  const present = code(world)
  const other = world.another()
  assert.ok((await logIn(world, `totp:${present}`)).cap)
  await assert.rejects(logIn(world, `totp:${present}`), refusal)
  const tfaChallenge = await firstStep(world)
  await assert.rejects(
    other.login({ username: 'bob@pve', password: `totp:${present}`, tfaChallenge, address }),
    refusal,
  )
})

test('of ten log-ins with one code at one time one gets in', async () => {
  await using world = await worldWithApp()
  const halves = await Promise.all(Array.from({ length: 10 }, () => firstStep(world)))
  const password = `totp:${code(world)}`
  const tries = halves.map((tfaChallenge) =>
    world.access.login({ username: 'bob@pve', password, tfaChallenge, address }),
  )
  const ends = await Promise.allSettled(tries)
  assert.equal(ends.filter(({ status }) => status === 'fulfilled').length, 1)
})

test('clients that know one step only send the code beside the password', async () => {
  await using world = await worldWithApp()
  const credentials = { username: 'bob@pve', password: bobsPassword, address }
  await assert.rejects(world.access.login({ ...credentials, otp: '000000' }), refusal)
  assert.ok((await world.access.login({ ...credentials, otp: code(world) })).cap)
  // Whoever has no second factor is not asked for one, whatever the client sends.
  assert.ok((await world.access.login({ ...credentials, username: 'eve@pve', otp: '000000' })).cap)
})

test('half a ticket is good for its user, for ten minutes, and never instead of a password', async () => {
  await using world = await worldWithApp()
  const { access, clock } = world
  await access.tfa.add({ ...act, userid: 'eve@pve' }, { type: 'totp', totp: uri, value: code(world, -1) })
  const half = await firstStep(world)
  const password = `totp:${code(world)}`
  await assert.rejects(access.login({ username: 'eve@pve', password, tfaChallenge: half, address }), refusal)
  await assert.rejects(access.login({ username: 'bob@pve', password: half, address }), refusal)
  await assert.rejects(
    access.login({ username: 'bob@pve', password, tfaChallenge: `${half.slice(0, -4)}AAA=`, address }),
    refusal,
  )
  const full = (await logIn(world, password)).ticket ?? ''
  await assert.rejects(access.login({ username: 'bob@pve', password, tfaChallenge: full, address }), refusal)
  clock.pass(accessLimits.tfa.challengeSeconds * 1000)
  await assert.rejects(
    access.login({ username: 'bob@pve', password: `totp:${code(world)}`, tfaChallenge: half, address }),
    refusal,
  )
})

test('a proof of rights without a session needs the second factor too', async () => {
  await using world = await worldWithApp()
  await give(world, '/vms', 'PVEVMUser', { users: ['bob@pve'] })
  const asking = { username: 'bob@pve', password: bobsPassword, address, path: '/vms', privs: ['VM.Audit'] }
  await assert.rejects(world.access.login(asking), refusal)
  assert.deepEqual(await world.access.login({ ...asking, otp: code(world) }), { username: 'bob@pve' })
})

test('five wrong codes lock for a while, the right one included; an administrator unlocks', async () => {
  await using world = await worldWithApp()
  const { access, clock } = world
  for (let n = 0; n < 5; n += 1) await assert.rejects(logIn(world, 'totp:000000'), refusal)
  const [bobs] = await access.tfa.list(async () => true)
  assert.equal(bobs?.['tfa-locked-until'], Math.floor(clock.now() / 1000) - 3 + accessLimits.tfa.lockSeconds)
  const [listed] = (await access.users(rootInPerson, {})).filter(({ userid }) => userid === 'bob@pve')
  assert.equal(listed?.['tfa-locked-until'], bobs['tfa-locked-until'])
  await assert.rejects(logIn(world, `totp:${code(world)}`), refusal)
  assert.match(world.logged.join('\n'), /second factors are locked/)
  // Refused without being looked at, so the code is not spent.
  assert.equal(await access.tfa.unlock('bob@pve'), true)
  assert.equal(await access.tfa.unlock('bob@pve'), false)
  assert.ok((await logIn(world, `totp:${code(world)}`)).cap)
})

test('a lock ends by itself, twenty wrong codes do not, and a recovery code makes good', async () => {
  await using world = await worldWithApp()
  const { access, clock } = world
  const { recovery = [] } = await access.tfa.add(act, { type: 'recovery' })
  for (let round = 0; round < 4; round += 1) {
    for (let n = 0; n < 5; n += 1) await assert.rejects(logIn(world, 'totp:000000'), refusal)
    clock.pass(accessLimits.tfa.lockSeconds * 1000)
  }
  assert.equal((await access.tfa.list(async () => true))[0]?.['totp-locked'], true)
  assert.deepEqual(challengeIn(await firstStep(world)).totp, undefined)
  await assert.rejects(logIn(world, `totp:${code(world)}`), refusal)
  assert.ok((await logIn(world, `recovery:${recovery[0]}`)).cap)
  clock.pass(step)
  assert.ok((await logIn(world, `totp:${code(world)}`)).cap)
})

test('each recovery code is good once, however it is typed, and the store holds none of them', async () => {
  await using world = await worldOf('bob@pve')
  const { recovery = [], id } = await world.access.tfa.add(act, { type: 'recovery' })
  assert.equal(id, 'recovery')
  assert.equal(new Set(recovery).size, 10)
  const stored = JSON.stringify(await world.store.list(''))
  for (const one of recovery) {
    assert.match(one, /^[a-z2-7]{4}(-[a-z2-7]{4}){3}$/)
    assert.ok(!stored.includes(one) && !stored.includes(one.replaceAll('-', '')))
  }
  for (const [at, one] of recovery.entries()) {
    assert.deepEqual(challengeIn(await firstStep(world)).recovery, [...recovery.keys()].slice(at))
    const typed = at % 2 === 0 ? one : one.toUpperCase().replaceAll('-', ' ')
    assert.ok((await logIn(world, `recovery:${typed}`)).cap)
    await assert.rejects(logIn(world, `recovery:${one}`), refusal)
  }
  // Used up, they still ask: the password alone must not have become enough.
  assert.deepEqual(challengeIn(await firstStep(world)), { recovery: [] })
  await assert.rejects(logIn(world, 'recovery:'), refusal)
  await assert.rejects(world.access.tfa.add(act, { type: 'recovery' }), { message: /has recovery codes already/ })
})

test('what is switched off or deleted is not asked for, and its code not taken', async () => {
  await using world = await worldWithApp()
  const { access } = world
  const [app] = await access.tfa.items('bob@pve')
  assert.deepEqual(Object.keys(app ?? {}).toSorted(), ['created', 'description', 'enable', 'id', 'type'])
  const id = app?.id ?? ''
  await access.tfa.change(act, id, { enable: false, description: 'old phone' })
  assert.equal((await access.tfa.item('bob@pve', id)).description, 'old phone')
  assert.ok((await access.login({ username: 'bob@pve', password: bobsPassword, address })).cap)
  await access.tfa.change(act, id, { enable: true })
  await firstStep(world)
  await access.tfa.delete(act, id)
  assert.ok((await access.login({ username: 'bob@pve', password: bobsPassword, address })).cap)
  await assert.rejects(access.tfa.item('bob@pve', id), { message: `TFA entry '${id}' does not exist` })
})

test('a deleted user takes the second factors along', async () => {
  await using world = await worldWithApp()
  await world.access.deleteUser('bob@pve')
  await world.access.createUser('bob@pve', { password: bobsPassword })
  assert.ok((await world.access.login({ username: 'bob@pve', password: bobsPassword, address })).cap)
  await assert.rejects(world.access.tfa.items('ghost@pve'), { message: "no such user ('ghost@pve')" })
})

test('whoever changes a factor confirms with his own password, and wrong ones are counted', async () => {
  await using world = await worldOf('bob@pve')
  const { access } = world
  const own = { who: bob, userid: 'bob@pve', address }
  const wanted = { type: 'totp', totp: uri, value: code(world) }
  await assert.rejects(access.tfa.add(own, wanted), invalidField('password', /own password/))
  await assert.rejects(
    access.tfa.add({ ...own, password: 'wrong' }, wanted),
    invalidField('password', /authentication failure/),
  )
  const { id = '' } = await access.tfa.add({ ...own, password: bobsPassword }, wanted)
  await assert.rejects(access.tfa.delete(own, id), invalidField('password', /own password/))
  await assert.rejects(access.tfa.change(own, id, { enable: false }), invalidField('password', /own password/))
  for (let n = 0; n < 12; n += 1) await access.tfa.delete({ ...own, password: 'wrong' }, id).catch(() => {})
  await assert.rejects(access.tfa.delete({ ...own, password: bobsPassword }, id), invalidField('password', /failure/))
})

test('an app is registered with a code that proves it, and its secret is in no answer and no log', async () => {
  await using world = await worldOf('bob@pve')
  const { access } = world
  await assert.rejects(access.tfa.add(act, { type: 'totp', totp: uri }), invalidField('value', /present code/))
  await assert.rejects(
    access.tfa.add(act, { type: 'totp', totp: uri, value: '12345' }),
    invalidField('value', /does not belong/),
  )
  await assert.rejects(access.tfa.add(act, { type: 'totp', value: '123456' }), invalidField('totp', /otpauth/))
  for (const type of ['u2f', 'yubico', 'x'])
    await assert.rejects(access.tfa.add(act, { type }), invalidField('type', /./))
  await access.tfa.add(act, { type: 'totp', totp: uri, value: code(world) })
  await assert.rejects(logIn(world, 'totp:000000'), refusal)
  const told = JSON.stringify([await access.tfa.list(async () => true), await access.user('bob@pve')])
  assert.ok(!told.includes(settings.secret) && !world.logged.join('').includes(settings.secret))
  for (let n = 1; n < accessLimits.tfa.entriesPerUser; n += 1) {
    await access.tfa.add(act, { type: 'totp', totp: uri, value: code(world) })
  }
  await assert.rejects(access.tfa.add(act, { type: 'totp', totp: uri, value: code(world) }), (e) =>
    isFault(e, 'exhausted'),
  )
})

const site = { origin: 'https://hako.example.org:8006', rpId: 'example.org' }
const configured = {
  options: { all: async () => ({ webauthn: `rp=Hakobune,id=${site.rpId},origin=https://hako.example.org:8006` }) },
}

async function worldWithKey(): Promise<{ world: SmallWorld; key: SoftwareKey }> {
  const world = await smallWorld(configured)
  await world.access.createUser('bob@pve', { password: bobsPassword })
  const key = new SoftwareKey()
  const { challenge: asked = '' } = await world.access.tfa.add(act, { type: 'webauthn' })
  const { challenge, rp } = (JSON.parse(asked) as { publicKey: { challenge: string; rp: { id: string } } }).publicKey
  assert.equal(rp.id, site.rpId)
  const wish = { type: 'webauthn', challenge, value: key.create({ ...site, challenge }), description: 'blue key' }
  const { id = '' } = await world.access.tfa.add(act, wish)
  assert.equal((await world.access.tfa.item('bob@pve', id)).description, 'blue key')
  // The challenge is spent.
  await assert.rejects(world.access.tfa.add(act, wish), invalidField('challenge', /not open/))
  return { world, key }
}

/** The first step; what the browser is asked for. */
async function keyStep(world: SmallWorld): Promise<{ half: string; challenge: string }> {
  const half = await firstStep(world)
  const { challenge, allowCredentials } = (challengeIn(half).webauthn ?? assert.fail()).publicKey as {
    challenge: string
    allowCredentials: { id: string }[]
  }
  assert.equal(allowCredentials.length, 1)
  return { half, challenge }
}

test('a security key proves itself, once per challenge', async () => {
  const { world, key } = await worldWithKey()
  await using _ = world
  const { half, challenge } = await keyStep(world)
  const password = `webauthn:${key.get({ ...site, challenge })}`
  const credentials = { username: 'bob@pve', password, tfaChallenge: half, address }
  assert.ok((await world.access.login(credentials)).cap)
  await assert.rejects(world.access.login(credentials), refusal)
})

test('a security key proves nothing for another site, another key, another challenge, or when it was copied', async () => {
  const { world, key } = await worldWithKey()
  await using _ = world
  const attempt = async (answer: (challenge: string) => string) => {
    const { half, challenge } = await keyStep(world)
    await world.access.tfa.unlock('bob@pve')
    return world.access.login({
      username: 'bob@pve',
      password: `webauthn:${answer(challenge)}`,
      tfaChallenge: half,
      address,
    })
  }
  const wrongs: ((challenge: string) => string)[] = [
    (challenge) => key.get({ ...site, challenge, origin: 'https://evil.example' }),
    (challenge) => key.get({ ...site, challenge, origin: 'https://evilexample.org' }),
    (challenge) => key.get({ ...site, challenge, origin: 'http://hako.example.org:8006' }),
    (challenge) => key.get({ ...site, challenge, rpId: 'evil.example' }),
    (challenge) => new SoftwareKey().get({ ...site, challenge }),
    () => key.get({ ...site, challenge: 'AAAA' }),
    (challenge) => key.get({ ...site, challenge }).replace(/"signature":"[^"]{8}/, '"signature":"AAAAAAAA'),
    (challenge) => key.create({ ...site, challenge }),
    () => '{}',
    () => '',
    () => '[[[',
  ]
  for (const [at, wrong] of wrongs.entries()) await assert.rejects(attempt(wrong), refusal, String(at))
  assert.ok((await attempt((challenge) => key.get({ ...site, challenge }))).cap)
  // Whoever copied the key is behind its counter.
  key.counter = 0
  await assert.rejects(
    attempt((challenge) => key.get({ ...site, challenge })),
    refusal,
  )
})

test('without a site there are no security keys, and what was registered waits for it', async () => {
  await using world = await worldOf('bob@pve')
  await assert.rejects(world.access.tfa.add(act, { type: 'webauthn' }), { message: /WebAuthn is not configured/ })
})

test('a realm that demands a one-time password lets nobody in without', async () => {
  await using world = await worldOf('bob@pve', 'eve@pve')
  await world.access.tfa.add(act, { type: 'totp', totp: uri, value: code(world) })
  world.clock.pass(step)
  await world.realms.update('pve', { set: { tfa: 'type=oath' }, remove: [] })
  await assert.rejects(world.access.login({ username: 'eve@pve', password: bobsPassword, address }), refusal)
  assert.match(world.logged.join('\n'), /realm demands/)
  assert.ok((await logIn(world, `totp:${code(world)}`)).cap)
  assert.deepEqual(await world.access.tfa.types('bob@pve'), { types: ['totp'], realm: 'oath' })
})
