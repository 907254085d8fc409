/** Second factors of a real node: over the public port, with clients that are not ours, through its death, and from the command line. */
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { promisify } from 'node:util'
import { readOtpauth, totpCode } from '#access/tfa/totp.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'
import { SoftwareKey } from '../fixtures/software-key.ts'
import { type Ask, form, method, proofOf, publicPort } from './public-port.ts'

const root = join(import.meta.dirname, '../..')
const password = 'correct horse battery'
const uri = 'otpauth://totp/Hakobune:x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&algorithm=SHA256&digits=8&period=60'
const read = readOtpauth(uri)
const settings = read.ok ? read.value : assert.fail(read.complaint)
const closing = new AsyncDisposableStack()
let node: TestNode
let ask: Ask

before(async () => {
  node = closing.use(await nodeUnderTest())
  ask = publicPort(`${node.url}/api2/json`)
})
after(() => closing.disposeAsync())

/** Of this minute, or of the next, which holds as well: each is good once, and the first one is spent on the registration. */
const code = (away: 0 | 1 = 1) => totpCode(settings, Math.floor(Date.now() / 60_000) + away)

/** A user with an app, and both ends of what the registration answered. */
async function person(username: string): Promise<void> {
  await node.api('POST', '/access/users', { userid: username, password })
  const added = (await node.api('POST', `/access/tfa/${username}`, {
    type: 'totp',
    totp: uri,
    value: code(0),
  })) as object
  assert.deepEqual(Object.keys(added), ['id'])
}

interface Reply {
  readonly ticket: string
  readonly CSRFPreventionToken: string
  readonly NeedTFA?: number
}

async function knock(params: Record<string, string>) {
  const reply = await ask('/access/ticket', ...form(params))
  return { ...reply, data: reply.data as Reply | null }
}

async function firstStep(username: string): Promise<string> {
  const { status, data } = await knock({ username, password })
  assert.deepEqual([status, data?.NeedTFA], [200, 1])
  return data?.ticket ?? ''
}

const secondStep = async (username: string, answer: string, half?: string) =>
  knock({ username, password: answer, 'tfa-challenge': half ?? (await firstStep(username)) })

test('what was spent and counted stays so when the node dies between the steps', async () => {
  const user = 'phoenix@pve'
  await person(user)
  const { recovery } = (await node.api('POST', `/access/tfa/${user}`, { type: 'recovery' })) as {
    recovery: string[]
  }
  const half = await firstStep(user)
  const once = code()
  assert.equal((await secondStep(user, `totp:${once}`)).status, 200)
  assert.equal((await secondStep(user, `recovery:${recovery[0]}`)).status, 200)
  await Promise.all(Array.from({ length: 4 }, () => secondStep(user, 'totp:00000000', half)))
  await node.kill9()
  await node.restart()
  // The half of a ticket is good for the node that comes back; what was spent is not.
  assert.equal((await secondStep(user, `totp:${once}`, half)).status, 401)
  // That was the fifth failure: the right answer does not help any more.
  assert.equal((await secondStep(user, `recovery:${recovery[1]}`, half)).status, 401)
  const [locked] = ((await node.api('GET', '/access/tfa')) as { userid: string; 'tfa-locked-until'?: number }[]).filter(
    ({ userid }) => userid === user,
  )
  assert.ok(Number(locked?.['tfa-locked-until']) > Date.now() / 1000)
  assert.equal(await node.api('PUT', `/access/users/${user}/unlock-tfa`), 1)
  const [spent, left] = await Promise.all(recovery.slice(0, 2).map((one) => secondStep(user, `recovery:${one}`, half)))
  assert.deepEqual([spent?.status, left?.status], [401, 200])
})

// Each refusal takes three seconds; they may as well pass together.
describe('as clients see it', { concurrency: true }, () => {
  test('curl logs in in two steps; half a ticket opens nothing', async () => {
    const user = 'curl@pve'
    await person(user)
    const half = await firstStep(user)
    const denied = await ask('/access/tfa', '-b', `PVEAuthCookie=${encodeURIComponent(half)}`)
    assert.deepEqual([denied.status, denied.reason], [401, 'permission denied - invalid PVE ticket'])
    const { status, data } = await secondStep(user, `totp:${code()}`, half)
    assert.equal(status, 200)
    const me = publicPort(
      `${node.url}/api2/json`,
      proofOf({ ticket: data?.ticket ?? '', csrf: data?.CSRFPreventionToken ?? '' }),
    )
    const [own] = (await me('/access/tfa')).data as { userid: string; entries: { type: string; enable: number }[] }[]
    assert.deepEqual([own?.userid, own?.entries.map(({ type, enable }) => [type, enable])], [user, [['totp', 1]]])
    assert.deepEqual((await me(`/access/users/${user}/tfa?multiple=1`)).data, { types: ['totp'] })
    assert.deepEqual((await me(`/access/users/${user}/tfa`)).data, { user: 'oath' })

    // One's own factors are one's own affair, with the password; others' are not.
    const made = await me(`/access/tfa/${user}`, ...form({ type: 'recovery' }))
    assert.deepEqual([made.status, Object.keys(made.json.errors ?? {})], [400, ['password']])
    const codes = (await me(`/access/tfa/${user}`, ...form({ type: 'recovery', password }))).data as {
      recovery: string[]
    }
    assert.equal(codes.recovery.length, 10)
    assert.equal((await me('/access/tfa/root@pam')).status, 403)
    assert.equal((await me('/access/tfa/root@pam', ...form({ type: 'recovery', password }))).status, 403)
    assert.equal((await me(`/access/users/${user}/unlock-tfa`, ...method('PUT'))).status, 403)
    const token = (await node.api('POST', `/access/users/${user}/token/full`, { privsep: '0' })) as { value: string }
    const asToken = ['-H', `Authorization: PVEAPIToken=${user}!full=${token.value}`]
    assert.equal((await ask(`/access/tfa/${user}/recovery`, ...asToken, ...method('DELETE'))).status, 403)
  })

  test('who manages the users of a group manages their second factors', async () => {
    await node.api('POST', '/access/groups', { groupid: 'night' })
    await person('nina@pve')
    await node.api('PUT', '/access/users/nina@pve', { groups: 'night' })
    await node.api('POST', '/access/users', { userid: 'lead@pve', password })
    await node.api('PUT', '/access/acl', { path: '/access/groups/night', users: 'lead@pve', roles: 'PVEUserAdmin' })
    const { data } = await knock({ username: 'lead@pve', password })
    const lead = publicPort(
      `${node.url}/api2/json`,
      proofOf({ ticket: data?.ticket ?? '', csrf: data?.CSRFPreventionToken ?? '' }),
    )
    const seen = (await lead('/access/tfa')).data as { userid: string; entries: { id: string }[] }[]
    assert.deepEqual(
      seen.map(({ userid }) => userid),
      ['nina@pve'],
    )
    const path = `/access/tfa/nina@pve/${seen[0]?.entries[0]?.id}`
    const off = await lead(path, ...method('PUT'), ...form({ enable: '0', password }))
    assert.equal(off.status, 200, off.reason)
    assert.equal((await knock({ username: 'nina@pve', password })).data?.NeedTFA, undefined)
    assert.equal((await lead(`${path}?password=${encodeURIComponent(password)}`, ...method('DELETE'))).status, 200)
    assert.deepEqual((await lead('/access/tfa')).data, [])
  })

  test("proxmoxer's otp opens the door once, and a wrong one does not", async () => {
    await person('py@pve')
    const login = async (otp: string) => {
      const child = promisify(execFile)('/usr/bin/python3', ['-W', 'ignore', join(import.meta.dirname, 'otp_login.py')])
      const facts = { host: '127.0.0.1', port: node.settings.apiPort, user: 'py@pve', password, otp }
      child.child.stdin?.end(JSON.stringify(facts))
      return JSON.parse((await child).stdout) as unknown
    }
    const once = code()
    assert.deepEqual(await login(once), { version: '9.2.3' })
    const refused = { refused: "Couldn't authenticate user: py" }
    assert.deepEqual(await login(once), refused)
  })

  test('a security key opens the door of the site it was made for', async () => {
    const user = 'key@pve'
    await node.api('POST', '/access/users', { userid: user, password })
    const site = { origin: node.url.replace('127.0.0.1', 'localhost'), rpId: 'localhost' }
    await node.api('PUT', '/cluster/options', { webauthn: `rp=Lab,id=${site.rpId},origin=${site.origin}` })
    const asked = (await node.api('POST', `/access/tfa/${user}`, { type: 'webauthn' })) as { challenge: string }
    const { challenge } = (JSON.parse(asked.challenge) as { publicKey: { challenge: string } }).publicKey
    const key = new SoftwareKey()
    await node.api('POST', `/access/tfa/${user}`, {
      type: 'webauthn',
      challenge,
      value: key.create({ ...site, challenge }),
    })
    const step = async () => {
      const half = await firstStep(user)
      const text = decodeURIComponent(/!tfa!([^:]+)/.exec(half)?.[1] ?? '')
      const { webauthn } = JSON.parse(text) as { webauthn: { publicKey: { challenge: string } } }
      return { half, challenge: webauthn.publicKey.challenge }
    }
    const first = await step()
    const away = key.get({ origin: 'https://evil.example', rpId: site.rpId, challenge: first.challenge })
    assert.equal((await secondStep(user, `webauthn:${away}`, first.half)).status, 401)
    const second = await step()
    const answer = key.get({ ...site, challenge: second.challenge })
    assert.equal((await secondStep(user, `webauthn:${answer}`, second.half)).status, 200)
    assert.equal((await secondStep(user, `webauthn:${answer}`, second.half)).status, 401)
  })

  test('the command line adds an app, whose secret it makes, shows what there is, and removes it', async () => {
    const user = 'cli@pve'
    await node.api('POST', '/access/users', { userid: user, password })
    const cli = (...args: string[]) => {
      const env = { ...process.env, HAKO_RUN_DIR: node.settings.runDir, LANG: 'C' }
      return spawn(process.execPath, [join(root, 'src/cli/main.ts'), ...args], { env, stdio: ['pipe', 'pipe', 'pipe'] })
    }
    const adding = cli('user', 'tfa', 'add', user, '--description', 'phone')
    const [out, errors]: [string[], string[]] = [[], []]
    adding.stderr.on('data', (part: Buffer) => errors.push(part.toString()))
    adding.stdout.on('data', (part: Buffer) => {
      out.push(part.toString())
      const shown = /otpauth:\S+/.exec(out.join(''))?.[0]
      if (shown === undefined || adding.stdin.writableEnded) return
      const app = readOtpauth(shown)
      adding.stdin.end(app.ok ? `${totpCode(app.value, Math.floor(Date.now() / 30_000))}\n` : 'none\n')
    })
    const status = await new Promise((resolve) => adding.once('close', resolve))
    assert.equal(status, 0, errors.join(''))
    const [entry] = (await node.api('GET', `/access/tfa/${user}`)) as { id: string; description: string }[]
    assert.equal(entry?.description, 'phone')
    const said = async (...args: string[]) => {
      const child = cli(...args)
      let text = ''
      for (const stream of [child.stdout, child.stderr]) stream.on('data', (part: Buffer) => (text += part.toString()))
      const ended = await new Promise((resolve) => child.once('close', resolve))
      return `${String(ended)} ${text}`
    }
    assert.match(await said('user', 'tfa', 'list', user), /^0 [^]*totp +phone/)
    assert.match(await said('user', 'tfa', 'unlock', user), /^0 /)
    assert.match(await said('user', 'tfa', 'delete', user, entry?.id ?? ''), /^[^0][^]*--confirm/)
    assert.match(await said('user', 'tfa', 'delete', user, entry?.id ?? '', '--confirm', entry?.id ?? ''), /^0 /)
    assert.deepEqual(await node.api('GET', `/access/tfa/${user}`), [])
  })
})

test('secrets are in the store, which the front cannot read, and nowhere else', async () => {
  const { stateDir, uidBase } = node.settings
  const holders: string[] = []
  for (const entry of await readdir(stateDir, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const path = join(entry.parentPath, entry.name)
    if ((await readFile(path)).includes(settings.secret)) holders.push(entry.name)
    const run = promisify(execFile)('setpriv', [
      '--reuid',
      String(uidBase - 1),
      '--clear-groups',
      '--regid',
      String(uidBase - 1),
      'head',
      '-c1',
      path,
    ])
    if (entry.name.startsWith('store.sqlite')) await assert.rejects(run, /Permission denied/)
    else await run.catch(() => {})
  }
  assert.ok(holders.length > 0 && holders.every((name) => name.startsWith('store.sqlite')), holders.join())
})
