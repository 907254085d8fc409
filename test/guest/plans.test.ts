/** Shipped plans, run on a real node: what they promise is asked of the guests, and nothing of them is left over. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import type { RunState } from '#plans/run-state.ts'
import { apiClient } from '#rest/client.ts'
import { unixTransport } from '#rest/transport.ts'
import { offerTemplate, template } from '../fixtures/containers/template.ts'
import { onScreen, type Typed } from '../fixtures/on-screen.ts'
import type { TestNode } from '../node-under-test.ts'
import { PlanWorld } from './plan-world.ts'

const root = join(import.meta.dirname, '../..')

const fixture = (name: string) => readFileSync(join(root, 'test/fixtures/plans', name), 'utf8')
const [scheduledPlan, peoplePlan] = [fixture('scheduled.md'), fixture('people.md')]

type Facts = Readonly<Record<string, unknown>>

suite('executable plans', { timeout: 1_200_000 }, () => {
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
    const scheduled = await world.written('scheduled.md', scheduledPlan)
    const { out, err } = await world.hako('plan', 'schedule', scheduled, '--at', '*:0/1', '--var', 'nodes=1')
    assert.equal(out, 'scheduled\n', err)
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
    const found = await readFile(own)
    assert.notDeepEqual(found, lost)
    // As somebody does it whose key may be abroad: on standard input.
    const used = await world.hakoGiven(paper, 'recovery-key', 'use', '--key', '-', '--replace', '-o', 'json')
    assert.partialDeepStrictEqual(JSON.parse(used.out), { storages: ['local'], later: [], forgotten: 1 })
    assert.notDeepEqual(await readFile(own), found)
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

  test('a question is asked at the terminal of who runs the plan, again for what is no answer, until Ctrl-C', async () => {
    const file = await world.written('typed.md', peoplePlan.replaceAll('people.md', 'typed.md'))
    const run = [process.execPath, join(root, 'src/cli/main.ts'), 'plan', 'run', file]
    const given = { env: { HAKO_RUN_DIR: node.settings.runDir } }
    const question = /Who is it about\? \(first, second\)/
    const stopped = await onScreen(run, [[question, '\u0003']], given)
    assert.equal(stopped.code, 130, stopped.screen)
    assert.equal((await world.newest('plans/typed.md'))?.outcome, 'waiting')
    const keys: Typed[] = ['nobody\r', 'first\r'].map((line) => [question, line])
    const answered = await onScreen(run.with(3, 'resume'), keys, given)
    assert.match(answered.screen, /failed at 'absent'/)
    assert.equal((await world.newest('plans/typed.md'))?.steps.which?.found, 'Who is it about? first')
    // What was answered stays so, whoever would leave it out now: the plan says that, too.
    const idle = await world.hako('plan', 'resume', file, '--skip', 'which', '--waive', 'absent', '--reason', 'later')
    assert.match(idle.err, /which: it is proven already: 'skip' changes nothing/)
    assert.match(await readFile(file, 'utf8'), /`which`: it is proven already: 'skip' changes nothing/)
    const listed = await world.hako('evidence', 'list', '-o', 'json')
    const [newest] = JSON.parse(listed.out) as { kind: string; quote: string }[]
    assert.deepEqual([newest?.kind, newest?.quote.startsWith('Plan plans/typed.md came to its end')], ['plan', true])
    await node.api('DELETE', '/access/users/first@pve')
  })

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

  test('a scheduled plan runs by itself at its time, and is known by what its file says now', async () => {
    const id = 'plans/scheduled.md'
    const file = join(world.folder, 'scheduled.md')
    const finished = async () => (await world.newest(id))?.outcome === 'proven'
    await waitFor(finished, { what: 'a scheduled run', timeoutMs: 90_000, everyMs: 200 })
    const runs = (await node.api('GET', '/hako/plans', { plan: id })) as RunState[]
    const [last] = runs
    assert.deepEqual([last?.starter, last?.where], ['root@pam', 'lab'])
    const minutes = runs.map(({ started }) => started.slice(0, 16))
    assert.equal(new Set(minutes).size, minutes.length, 'once a minute')
    assert.ok(
      runs.some(({ started }) => new Date(started).getSeconds() < 30),
      JSON.stringify(runs),
    )

    // Its file was not touched, and counts as proven all the same.
    assert.equal(await readFile(file, 'utf8'), scheduledPlan)
    const listed = JSON.parse((await world.hako('plan', 'list', world.folder, '-o', 'json')).out) as Facts[]
    const one = listed.find(({ plan }) => plan === id)
    assert.deepEqual([one?.status, one?.['age-days'], typeof one?.['next-run']], ['proven', 0, 'number'])
    assert.equal((await world.hako('plan', 'update', file)).code, 0)
    assert.match(await readFile(file, 'utf8'), /- \[x\] See the node <!-- hako: proven /)

    const schedules = async () =>
      JSON.parse((await world.hako('plan', 'schedule', 'list', '-o', 'json')).out) as Facts[]
    const [same] = await schedules()
    assert.deepEqual([same?.id, same?.schedule, same?.['file-is']], ['scheduled', '*:0/1', 'same'])
    await writeFile(file, scheduledPlan.replace('default: 0', 'default: 2'))
    assert.match(String((await schedules())[0]?.['file-is']), /^changed: .*scheduled\.md$/)
    await rm(file)
    assert.match(String((await schedules())[0]?.['file-is']), /^gone: .*scheduled\.md$/)
    await writeFile(file, scheduledPlan)
    assert.equal((await world.hako('plan', 'schedule', file, '--at', 'monthly')).code, 0)
    const [changed] = await schedules()
    assert.deepEqual([changed?.schedule, changed?.['file-is']], ['monthly', 'same'])

    const refusals = [
      ['onboard-operator.en.md', /needs the secret 'password', and nobody is there to give it/],
      ['people.md', /step 'which' asks somebody, and nobody is there to answer/],
    ] as const
    for (const [name, why] of refusals) {
      const path = name === 'people.md' ? await world.written(name, peoplePlan) : await world.copied(name)
      assert.match((await world.hako('plan', 'schedule', path, '--at', 'daily')).err, why)
    }
    assert.equal((await world.hako('plan', 'schedule', 'remove', 'scheduled')).code, 0)
    assert.deepEqual(await schedules(), [])
    assert.match((await world.hako('plan', 'schedule', 'remove', 'scheduled')).err, /No such job 'scheduled'/)
    await rm(join(node.settings.stateDir, 'lab'))
    const live = await world.hako('plan', 'schedule', file, '--at', 'daily')
    assert.match(live.err, /this node is no lab/)
    await writeFile(join(node.settings.stateDir, 'lab'), 'Again.\n')
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
