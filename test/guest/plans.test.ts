/** Shipped plans, run on a real node: what they promise is asked of the guests, and nothing of them is left over. */
import assert from 'node:assert/strict'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { apiClient } from '#rest/client.ts'
import { unixTransport } from '#rest/transport.ts'
import { offerTemplate, template } from '../fixtures/containers/template.ts'
import type { TestNode } from '../node-under-test.ts'
import { PlanWorld } from './plan-world.ts'

const root = join(import.meta.dirname, '../..')

suite('executable plans', { timeout: 900_000 }, () => {
  let world: PlanWorld
  let node: TestNode
  before(async () => {
    world = await PlanWorld.make()
    node = world.node
    await node.boot(100)
    await offerTemplate(node.settings)
    const lxc = '/nodes/testnode/lxc'
    await node.task(await node.api('POST', lxc, { vmid: '101', ostemplate: template, rootfs: 'local:0.1' }))
    await node.task(await node.api('POST', `${lxc}/101/status/start`))
  })
  after(() => world[Symbol.asyncDispose]())

  test('the first backup is restored to a new guest that answers, killed at each step, and the plan says so itself', async () => {
    const name = 'first-restore.ja.md'
    const file = await world.copied(name)
    const [before, text] = [await world.things(), await readFile(file, 'utf8')]

    const run = await world.killedAtEachStep(name, {}, async () => {
      const { code, err } = await world.hako('plan', 'resume', file)
      assert.equal(code, 0, err)
    })

    assert.deepEqual(run.made, [])
    assert.deepEqual(await world.things(), before)
    const { status, boxes } = await world.standingOf(file)
    assert.equal(status, 'proven', JSON.stringify(boxes))
    const written = await readFile(file, 'utf8')
    const proof = String.raw`<!-- hako: proven \S+Z \d{8}T\d{6}Z-plan-first-restore-ja-\d+ -->`
    assert.match(written, new RegExp(`- \\[x\\] 復元したゲストが中から応答する。 ${proof}`))
    assert.match(written, /`answers` 証明済み \d+\.\d 秒/)
    // All other lines are those of its author.
    const plain = (line: string) => line.replace(/ <!-- hako: .*-->$/, '').replace('- [x]', '- [ ]')
    const others = written
      .split('\n')
      .map(plain)
      .filter((line) => !line.includes('-plan-first-restore-ja-') && line !== '')
    assert.deepEqual(
      others,
      text.split('\n').filter((line) => line !== ''),
    )
    assert.equal((await world.hako('plan', 'lint', file)).out, '')
  })

  test('evidence that was tampered with proves nothing: its boxes are claimed', async () => {
    const file = join(node.settings.stateDir, 'project/plans/first-restore.ja.md')
    const [, evidence = ''] = / (\d{8}T\S+-plan-\S+) -->/.exec(await readFile(file, 'utf8')) ?? []
    const record = join(node.settings.stateDir, 'evidence', evidence, 'record.json')
    const good = await readFile(record, 'utf8')
    await writeFile(record, good.replace('"tries": 1', '"tries": 2'))
    const fallen = await world.standingOf(file)
    assert.equal(fallen.status, 'claimed')
    for (const box of fallen.boxes)
      assert.equal(box.status, box.evidence === evidence ? 'claimed' : 'proven', box.words)
    await writeFile(record, good)
    assert.equal((await world.standingOf(file)).status, 'proven')
  })

  test('a run outlives its daemon', async () => {
    const name = 'execplan-ja-part1-ch2-architecture.md'
    const document = await readFile(join(root, 'plans', name), 'utf8')
    const upid = await node.api('POST', '/hako/plans', { plan: `plans/${name}`, document })
    const hasBegun = async () => (await world.newest(`plans/${name}`))?.steps['node-answers'] !== undefined
    await waitFor(hasBegun, { what: 'the first step', timeoutMs: 30_000, everyMs: 5 })
    await node.kill9()
    await node.restart()
    await node.task(upid)
    assert.equal((await world.newest(`plans/${name}`))?.outcome, 'proven')
  })

  test('a damaged guest is restored over when its name was typed, and not before', async () => {
    const name = 'restore-over.en.md'
    const before = await world.things()
    const document = await readFile(join(root, 'plans', name), 'utf8')
    const untyped = await world.hako('plan', 'run', await world.copied(name))
    assert.deepEqual(
      [untyped.code, /guest\/9101 is destroyed only when its name is typed/.test(untyped.err)],
      [2, true],
    )
    const unconfirmed = await node.api('POST', '/hako/plans', { plan: `plans/${name}`, document })
    await node.task(unconfirmed, /guest\/9101 is destroyed only when its name is typed/)
    assert.deepEqual(await world.things(), before)
    await world.killedAtEachStep(name, { confirm: ['guest/9101'] })
    assert.deepEqual(await world.things(), before)
  })

  test('the monthly review drills the newest backup, and its figures are on record', async () => {
    await node.task(await node.api('POST', `/nodes/${node.settings.node}/vzdump`, { vmid: '100', storage: 'local' }))
    const before = await world.things()
    const run = await world.killedAtEachStep('monthly-review.ja.md')
    assert.match(String(run.steps['on-record']?.recorded?.quote as string), /^VM 100 proven to L5/)
    assert.deepEqual(await world.things(), before)
  })

  test('an operator is added once, holds what is needed, and a second run changes nothing', async () => {
    const secret = ['password=correct-horse-battery']
    const access = async () => [
      await node.api('GET', '/access/users'),
      await node.api('GET', '/access/acl'),
      await node.api('GET', '/access/roles/GuestOperator'),
    ]
    await world.killedAtEachStep('onboard-operator.en.md', { secret })
    const after = await access()
    const file = await world.copied('onboard-operator.en.md')
    const place = join(node.settings.stateDir, 'first-password')
    await writeFile(place, 'correct-horse-battery\n', { mode: 0o600 })
    const shown = await world.hako('plan', 'run', file, '--var', 'password=correct-horse-battery')
    assert.match(shown.err, /'password' is a secret: it is named, not given/)
    const again = await world.hako('plan', 'run', file, '--var', `password=file:${place}`)
    assert.equal(again.code, 0, again.err)
    assert.equal((await world.standingOf(file)).status, 'proven')
    assert.deepEqual(await access(), after)
    const told = [
      again.out,
      again.err,
      await readFile(file, 'utf8'),
      JSON.stringify(await world.newest('plans/onboard-operator.en.md')),
    ]
    assert.ok(!told.some((text) => text.includes('correct-horse')))
    const { stdout } = await machine().run(['grep', '-rl', 'correct-horse', node.settings.stateDir])
    assert.deepEqual(stdout.trimEnd().split('\n'), [place])
    await node.api('POST', '/access/ticket', { username: 'operator@pve', password: 'correct-horse-battery' })
  })

  test('a full datastore says so, leaves nothing half written, and the guest feels nothing', async () => {
    const path = join(node.settings.stateDir, 'small')
    await mkdir(path)
    await machine().run(['mount', '-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', path])
    try {
      const before = await world.things()
      const run = await world.killedAtEachStep('datastore-full.ja.md', { var: [`path=${path}`] })
      assert.match(run.steps.fails?.found ?? '', /it failed, as it should/)
      assert.deepEqual(await world.things(), before)
    } finally {
      await machine().run(['umount', path])
    }
  })

  test('the key of the node is lost: the paper alone brings all back, the lost key opens nothing, no pack is written anew', async () => {
    const { key: paper } = (await node.api('POST', '/hako/recovery-key', { replace: '1' })) as { key: string }
    await node.api('PUT', '/hako/recovery-key', { key: paper })
    await node.task(await node.api('POST', `/nodes/${node.settings.node}/vzdump`, { vmid: '100', storage: 'local' }))
    const name = 'key-loss.ja.md'
    const [before, stored] = [await world.things(), await world.packs()]
    const own = join(node.settings.stateDir, 'keys/datastore.key')
    const lost = await readFile(own)
    const secret = [`recovery-key=${paper}`]
    const attempt = async (more: Record<string, string | string[]>) => {
      const document = await readFile(join(root, 'plans', name), 'utf8')
      return node.api('POST', '/hako/plans', { plan: `plans/${name}`, document, secret, ...more })
    }
    await node.task(await attempt({}), /key\/node is destroyed only when its name is typed/)
    await node.task(
      await attempt({ in: 'live', confirm: ['key/node'] }),
      /not destroyed on a live node without a grant/,
    )
    assert.deepEqual(await readFile(own), lost)

    await world.killedAtEachStep(name, { secret, confirm: ['key/node'] })

    assert.deepEqual(await world.things(), before)
    assert.notDeepEqual(await readFile(own), lost)
    const still = new Set(await world.packs())
    assert.deepEqual(
      stored.filter((pack) => !still.has(pack)),
      [],
    )
    const { stdout } = await machine().run(['grep', '-rl', paper, node.settings.stateDir], { okCodes: [0, 1] })
    assert.equal(stdout, '')
  })

  for (const chapter of ['execplan-ja-part1-ch2-architecture.md', 'execplan-ja-part3-ch8-backup.md']) {
    test(`the plan of a chapter closes all of its boxes by running: ${chapter}`, async () => {
      const before = await world.things()
      await world.killedAtEachStep(chapter)
      assert.deepEqual(await world.things(), before)
    })
  }

  test('what a plan asks is answered by somebody, what does not hold is decided by somebody, and both are on record', async () => {
    const file = await world.written('people.md', peoplePlan)
    const id = 'plans/people.md'
    const asked = await world.hako('plan', 'run', file)
    assert.match(asked.err, /'which' waits: Who is it about\?/)
    assert.match(asked.err, /hako plan resume \S+people\.md --answer which=first\|second/)
    const [open] = (await world.standingOf(file)).boxes
    assert.deepEqual([open?.status, open?.why], ['open', 'Who is it about?'])
    const refusals = [
      [['--answer', 'which=third'], /'third' is no answer to step 'which': first, second/],
      [['--answer', 'absent=yes'], /step 'absent' asks nothing/],
      [['--skip', 'nothing', '--reason', 'x'], /the plan has no step 'nothing': which, made, named, absent, known/],
      [['--skip', 'absent'], /a decision needs its reason/],
      [['--skip', 'absent', '--reason', ' '], /a decision needs its reason/],
    ] as const
    for (const [words, why] of refusals) assert.match((await world.hako('plan', 'resume', file, ...words)).err, why)
    await assert.rejects(
      node.api('POST', '/hako/plans', { plan: id, document: peoplePlan, mode: 'resume', decision: ['absent=skip: '] }),
      (error) =>
        isFault(error, 'invalid') && /is not step=skip\|waive\|continue: why/.test(error.fields?.decision ?? ''),
    )
    const refused = await world.newest(id)
    assert.deepEqual([refused?.outcome, refused?.attempts.length], ['waiting', 1])

    // Somebody else answers, through the API.
    await node.api('POST', '/access/users', { userid: 'shift@pve' })
    await node.api('PUT', '/access/acl', { path: '/', users: 'shift@pve', roles: 'Administrator' })
    const token = (await node.api('POST', '/access/users/shift@pve/token/plan', { privsep: '0' })) as { value: string }
    using transport = unixTransport(node.connection.socketPath)
    const credentials = { kind: 'token', token: `shift@pve!plan=${token.value}` } as const
    const shift = apiClient(transport.send, { credentials: () => credentials })
    const answer = { plan: id, document: peoplePlan, mode: 'resume', answer: ['which=second'] }
    const { log } = await node.task((await shift.raw('POST', '/hako/plans', answer)).data, /failed at 'absent'/)
    assert.match(log, /hako plan resume\. Or leave the step out \(--skip STEP --reason TEXT\)/)

    // Root decides, at the command line.
    const decided = await world.hako('plan', 'resume', file, '--waive', 'absent', '--reason', 'it comes on Monday')
    assert.equal(decided.code, 7, decided.err)
    const run = await world.newest(id)
    assert.deepEqual([run?.outcome, run?.steps.which?.by], ['decided', 'shift@pve!plan'])
    const text = await readFile(file, 'utf8')
    const section = text.slice(text.indexOf('Decision log'), text.indexOf('Outcomes'))
    const when = String.raw`- \[\d{4}-\d\d-\d\d \d\d:\d\d\]`
    const lines = [
      `${when} \`which\` answer: Who is it about\\? second – shift@pve!plan \\(evidence \\S+\\)`,
      `${when} \`absent\` waive: it comes on Monday – root@pam \\(evidence \\S+\\)`,
    ]
    assert.match(section, new RegExp(`^${lines.join(String.raw`\n`)}$`, 'm'))
    assert.match(text, /- \[ \] Look for somebody who is not there yet <!-- hako: waived /)
    const proofs = await Promise.all(
      (run?.attempts ?? []).map(async ({ id: evidence }) => node.api('GET', `/hako/plans/${evidence}/proof`)),
    )
    const records = proofs as { ok: unknown; record: { decisions: unknown[]; steps: { id: string; by?: string }[] } }[]
    assert.deepEqual(
      records.map(({ ok }) => Boolean(ok)),
      records.map(() => true),
    )
    assert.ok(
      records.some(({ record }) => record.steps.some((step) => step.id === 'which' && step.by === 'shift@pve!plan')),
    )
    const [waived] = records.flatMap(({ record }) => record.decisions)
    assert.partialDeepStrictEqual(waived, {
      kind: 'waive',
      step: 'absent',
      reason: 'it comes on Monday',
      by: 'root@pam',
    })
    const { status, boxes } = await world.standingOf(file)
    assert.deepEqual(
      [status, boxes.map((box) => box.status)],
      ['claimed', ['proven', 'proven', 'proven', 'waived', 'proven']],
    )
    await node.api('DELETE', '/access/users/second@pve')
  })

  test('what nobody knows to be done, and may not be repeated, is done again only when somebody says so', async () => {
    const document = peoplePlan.replaceAll('people.md', 'unknown.md')
    const file = await world.written('unknown.md', document)
    const attempt = { plan: 'plans/unknown.md', document, answer: ['which=first'] }
    await world.killedAt('named', attempt)
    const waits = await world.hako('plan', 'resume', file)
    assert.match(waits.err, /'named' waits: nobody knows whether it was done/)
    assert.match(waits.err, /hako plan resume \S+ --continue named --reason TEXT/)
    const words = ['--continue', 'named', '--skip', 'absent', '--reason', 'the same name twice does no harm']
    assert.equal((await world.hako('plan', 'resume', file, ...words)).code, 7)
    const run = await world.newest('plans/unknown.md')
    assert.deepEqual(
      Object.values(run?.steps ?? {}).map(({ result }) => result),
      ['proven', 'proven', 'proven', 'skipped', 'proven'],
    )
    await node.api('DELETE', '/access/users/first@pve')
  })

  test('a run may do what its starter may, and no more', async () => {
    await node.api('POST', '/access/users', { userid: 'auditor@pve' })
    await node.api('PUT', '/access/acl', { path: '/', users: 'auditor@pve', roles: 'PVEAuditor' })
    const token = (await node.api('POST', '/access/users/auditor@pve/token/plan', { privsep: '0' })) as {
      value: string
    }
    const before = await world.things()
    const name = 'first-restore.en.md'
    const document = await readFile(join(root, 'plans', name), 'utf8')
    using transport = unixTransport(node.connection.socketPath)
    const credentials = { kind: 'token', token: `auditor@pve!plan=${token.value}` } as const
    const auditor = apiClient(transport.send, { credentials: () => credentials })
    const { data } = await auditor.raw('POST', '/hako/plans', { plan: `plans/${name}`, document })
    const { log } = await node.task(data, /failed at 'backup': Permission check failed/)
    assert.match(log, /storage-takes-backups proven/)
    assert.deepEqual(await world.things(), before)
    await node.task(await node.api('POST', '/hako/plans', { plan: `plans/${name}`, document, mode: 'undo' }))
  })
})

const peoplePlan = `# Somebody is asked

## Metadata

- Plan ID: plans/people.md

## Concrete steps

- [ ] Ask

  \`\`\`step
  id: which
  class: read
  run: { ask: Who is it about?, choices: [first, second] }
  \`\`\`

- [ ] Make them known

  \`\`\`step
  id: made
  class: create
  run: { api: POST /access/users, with: { userid: "\${{ steps.which.answer }}@pve" } }
  makes: user/\${{ steps.which.answer }}@pve
  undo: { api: "DELETE /access/users/\${{ steps.which.answer }}@pve" }
  \`\`\`

- [ ] Name them

  \`\`\`step
  id: named
  class: change
  run: { api: "PUT /access/users/\${{ steps.which.answer }}@pve", with: { comment: "\${{ steps.which.answer }}" } }
  \`\`\`

- [ ] Look for somebody who is not there yet

  \`\`\`step
  id: absent
  class: read
  run: { api: GET /access/users/nobody@pve }
  \`\`\`

- [ ] See the name

  \`\`\`step
  id: known
  class: read
  run: { api: "GET /access/users/\${{ steps.which.answer }}@pve" }
  expect: { comment: "\${{ steps.which.answer }}" }
  \`\`\`

## Progress

## Surprises & discoveries

## Decision log

## Outcomes & retrospective
`
