/** The webhook of backups, told to real web servers. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmod, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import type { IncomingHttpHeaders, RequestListener } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import type { Webhook } from '#cluster/backup-options.ts'
import { type TestAuthority, testAuthority } from '../../../test/fixtures/test-authority.ts'
import type { JobOutcome } from './job-outcome.ts'
import { requireWebhook, tellOnce, tellWebhook, type WebhookNeeds } from './webhook.ts'

const outcome: JobOutcome = {
  node: 'lab',
  upid: 'UPID:lab:1',
  job: 'nightly',
  storage: 'vault',
  startedMs: 1_795_000_000_000,
  endedMs: 1_795_000_060_000,
  isFailed: true,
  guests: [
    { vmid: 100, volid: 'vault:backup/vm/100/2026-11-20T10:00:00Z', seconds: 12.4 },
    { vmid: 101, reason: 'x'.repeat(2_000), seconds: 0.2 },
  ],
}

suite('a webhook', () => {
  const closing = new AsyncDisposableStack()
  const asked: { url: string; headers: IncomingHttpHeaders; body: string }[] = []
  const slept: number[] = []
  let [authority, folder, origin]: [TestAuthority?, string?, string?] = []
  let answers: RequestListener = (_, response) => void response.writeHead(204).end()
  let needs: WebhookNeeds

  before(async () => {
    authority = closing.use(testAuthority())
    const { certificate: cert, key } = authority.sign('localhost')
    const server = createServer({ cert, key }, async (request, response) => {
      let body = ''
      for await (const part of request) body += String(part)
      asked.push({ url: request.url ?? '', headers: request.headers, body })
      answers(request, response)
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    closing.defer(() => {
      server.closeAllConnections()
      server.close()
    })
    origin = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
    folder = await mkdtemp(join(tmpdir(), 'hako-webhook-'))
    closing.defer(() => rm(folder ?? '', { recursive: true }))
    const sleep = async (ms: number) => void slept.push(ms)
    needs = {
      settings: { fetchNetworks: ['127.0.0.1'], caFile: authority.file },
      clock: { ...systemClock, sleep },
    }
  })
  after(() => closing.disposeAsync())

  const hook = (path: string, more: Partial<Webhook> = {}): Webhook => ({
    url: `${origin}${path}`,
    on: 'failure',
    ...more,
  })
  /** What was asked, and how often it waited, while it was told. */
  const telling = async (webhook: Webhook, how: WebhookNeeds = needs) => {
    asked.length = 0
    slept.length = 0
    const fault = await tellWebhook(webhook, outcome, how).then(
      () => undefined,
      (cause: unknown) => (isFault(cause) ? cause : Promise.reject(cause as Error)),
    )
    return { kind: fault?.kind, message: fault?.message ?? '', times: asked.length, slept: [...slept] }
  }

  test('hears which job of which node it was, and what became of each guest', async () => {
    assert.deepEqual(await telling(hook('/hooks/lab?room=1')), { kind: undefined, message: '', times: 1, slept: [] })
    const [{ url, headers, body } = { url: '', headers: {}, body: '' }] = asked
    assert.deepEqual(
      [url, headers['content-type'], headers.authorization],
      ['/hooks/lab?room=1', 'application/json', undefined],
    )
    assert.deepEqual(JSON.parse(body), {
      event: 'backup',
      text: 'backup on lab, job nightly: failed (1 of 2 guests)',
      outcome: 'failed',
      node: 'lab',
      job: 'nightly',
      upid: 'UPID:lab:1',
      storage: 'vault',
      started: '2026-11-18T11:06:40.000Z',
      ended: '2026-11-18T11:07:40.000Z',
      alarms: 0,
      hints: 0,
      guests: [
        { vmid: 101, outcome: 'failed', reason: 'x'.repeat(500), seconds: 0 },
        { vmid: 100, outcome: 'successful', volid: 'vault:backup/vm/100/2026-11-20T10:00:00Z', seconds: 12 },
      ],
      more: 0,
    })
  })

  test('hears of alarms and hints, and of their guests before those of which there is nothing to say', async () => {
    const good = { vmid: 100, volid: 'vault:backup/vm/100/x', seconds: 1 }
    const alarms = [`scsi0: ${'x'.repeat(2_000)}`, 'scsi1: y']
    const guests = [good, { ...good, vmid: 101, hint: 'much is new' }, { ...good, vmid: 102, alarms }]
    asked.length = 0
    await tellOnce(hook('/'), { ...outcome, isFailed: false, guests }, needs)
    const told = JSON.parse(asked[0]?.body ?? '') as { guests: object[] } & Record<string, unknown>
    assert.deepEqual(
      [told.outcome, told.text, told.alarms, told.hints],
      ['successful', 'backup on lab, job nightly: successful, with an ALARM (3 of 3 guests)', 1, 1],
    )
    const rest = { outcome: 'successful', volid: good.volid, seconds: 1 }
    assert.deepEqual(told.guests, [
      { vmid: 102, alarms: [alarms[0]?.slice(0, 500), 'scsi1: y'], ...rest },
      { vmid: 101, hint: 'much is new', ...rest },
      { vmid: 100, ...rest },
    ])
  })

  test('is told the secret of a file that is root’s alone, in the header that was named', async () => {
    const secretFile = join(folder ?? '', 'secret')
    await writeFile(secretFile, 'Bearer one-two\n', { mode: 0o600 })
    await telling(hook('/', { secretFile }))
    assert.equal(asked[0]?.headers.authorization, 'Bearer one-two')
    await telling(hook('/', { secretFile, header: 'X-Token' }))
    assert.deepEqual([asked[0]?.headers['x-token'], asked[0]?.headers.authorization], ['Bearer one-two', undefined])
    await chmod(secretFile, 0o640)
    assert.match((await telling(hook('/', { secretFile }))).message, /others than root can read or change/)
    await writeFile(secretFile, 'one\r\nHost: two', { mode: 0o600 })
    await chmod(secretFile, 0o600)
    assert.match((await telling(hook('/', { secretFile }))).message, /no single line/)
    await symlink('/etc/shadow', join(folder ?? '', 'link'))
    const linked = await telling(hook('/', { secretFile: join(folder ?? '', 'link') }))
    assert.deepEqual([linked.kind, linked.times], ['failed', 0])
    const gone = await telling(hook('/', { secretFile: '/no/such/file' }))
    assert.deepEqual([gone.kind, gone.times], ['missing', 0])
  })

  test('is told again while it may pass, and not without end', async () => {
    let refusals = 2
    answers = (_, response) => void response.writeHead(refusals-- > 0 ? 503 : 200).end()
    assert.deepEqual(await telling(hook('/')), { kind: undefined, message: '', times: 3, slept: [5_000, 20_000] })
    answers = (_, response) => void response.writeHead(500).end()
    const never = await telling(hook('/?key=secret'))
    assert.deepEqual([never.kind, never.times, never.slept], ['unavailable', 3, [5_000, 20_000]])
    assert.match(never.message, /^'https:\/\/127\.0\.0\.1:\d+\/' answers 500$/)
    answers = (_, response) => void response.writeHead(403).end()
    assert.deepEqual([(await telling(hook('/'))).kind, asked.length], ['failed', 1])
    // Nothing is followed: what is in the head is for this server alone.
    answers = (_, response) => void response.writeHead(307, { Location: `${origin}/other` }).end()
    assert.deepEqual([(await telling(hook('/'))).kind, asked.length], ['failed', 1])
    // Nobody reads what it says, however long it says it.
    answers = (_, response) => void response.writeHead(200).write('x')
    assert.equal((await telling(hook('/'))).kind, undefined)
  })

  test('is not asked where it is not the one it should be, or may not be asked', async () => {
    const stranger = { ...needs, settings: { fetchNetworks: ['127.0.0.1'] } }
    const untrusted = await telling(hook('/'), stranger)
    assert.deepEqual([untrusted.kind, untrusted.times], ['unavailable', 0])
    const refused = await telling(hook('/'), { ...needs, settings: {} })
    assert.deepEqual([refused.kind, refused.times, refused.slept], ['denied', 0, []])
    const ending = AbortSignal.abort()
    await assert.rejects(tellOnce(hook('/'), outcome, { ...needs, signal: ending }), (fault) =>
      isFault(fault, 'aborted'),
    )
  })

  test('is refused where it could not be told safely', () => {
    const wrong: readonly (readonly [string, Webhook])[] = [
      ['webhook', { url: 'ftp://x/', on: 'always' }],
      ['webhook', { url: 'https://user:word@x/', on: 'always' }],
      ['webhook-header', { url: 'https://x/', on: 'always', header: 'Content-Length' }],
      ['webhook-secret-file', { url: 'http://x/', on: 'always', secretFile: '/root/secret' }],
    ]
    for (const [field, webhook] of wrong) {
      assert.throws(
        () => requireWebhook(webhook),
        (fault) => isFault(fault, 'invalid') && field in (fault.fields ?? {}),
      )
    }
    requireWebhook({ url: 'http://x/', on: 'always' })
  })
})
