/** Shipped plans, run on a real node: what they promise is asked of the guests, and nothing of them is left over. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { promisify } from 'node:util'
import { waitFor } from '#base/clock.ts'
import { machine } from '#host/exec.ts'
import { documentOf } from '#plans/document.ts'
import { planOf } from '#plans/plan.ts'
import type { RunState } from '#plans/run-state.ts'
import type { PlanStanding } from '#plans/status.ts'
import { apiClient } from '#rest/client.ts'
import { unixTransport } from '#rest/transport.ts'
import { parseUpid } from '#tasks/upid.ts'
import { offerTemplate, template } from '../fixtures/containers/template.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

const root = join(import.meta.dirname, '../..')
const program = promisify(execFile)

suite('executable plans', { timeout: 900_000 }, () => {
  let node: TestNode
  before(async () => {
    node = await nodeUnderTest()
    await writeFile(join(node.settings.stateDir, 'lab'), 'A lab, as far as this test goes.\n')
    await node.boot(100)
    await offerTemplate(node.settings)
    const lxc = '/nodes/testnode/lxc'
    await node.task(await node.api('POST', lxc, { vmid: '101', ostemplate: template, rootfs: 'local:0.1' }))
    await node.task(await node.api('POST', `${lxc}/101/status/start`))
  })
  after(() => node[Symbol.asyncDispose]())

  /** A copy of a shipped plan, in a project of its own. */
  const copied = async (name: string): Promise<string> => {
    const folder = join(node.settings.stateDir, 'project/plans')
    await mkdir(folder, { recursive: true })
    await copyFile(join(root, 'plans', name), join(folder, name))
    return join(folder, name)
  }
  const hako = async (...words: readonly string[]): Promise<{ code: number; out: string; err: string }> => {
    const args = ['--disable-warning=ExperimentalWarning', join(root, 'src/cli/main.ts'), ...words]
    const env = { PATH: process.env.PATH, HAKO_RUN_DIR: node.settings.runDir }
    try {
      const { stdout, stderr } = await program(process.execPath, args, { env })
      return { code: 0, out: stdout, err: stderr }
    } catch (error) {
      const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string }
      return { code, out: stdout, err: stderr }
    }
  }
  const standingOf = async (file: string): Promise<PlanStanding> =>
    JSON.parse((await hako('plan', 'show', file, '-o', 'json')).out) as PlanStanding
  const newest = async (plan: string): Promise<RunState | undefined> => {
    const [run] = (await node.api('GET', '/hako/plans', { plan })) as { run: string }[]
    return run && ((await node.api('GET', `/hako/plans/${run.run}`)) as RunState)
  }

  /** Kills the process of the run as each of its steps begins, but for the last, with which it is gone on to its end. */
  async function killedAtEachStep(
    name: string,
    more: Record<string, string | string[]> = {},
    toItsEnd?: () => Promise<void>,
  ): Promise<RunState> {
    const document = await readFile(join(root, 'plans', name), 'utf8')
    const plan = `plans/${name}`
    const { steps } = planOf(documentOf(document))
    const attempt = async (mode: string) =>
      String(await node.api('POST', '/hako/plans', { plan, document, mode, ...more }))
    for (const [at, { id }] of steps.slice(0, -1).entries()) {
      const upid = await attempt(at === 0 ? 'run' : 'resume')
      const hasBegun = async () => {
        const run = await newest(plan)
        if (run?.attempts.at(-1)?.upid !== upid) return undefined
        return run.steps[id] !== undefined || run.outcome === 'failed' ? run : undefined
      }
      const run = await waitFor(hasBegun, { what: `step ${id} of ${plan}`, timeoutMs: 120_000, everyMs: 5 })
      assert.notEqual(run.outcome, 'failed', JSON.stringify(run.steps))
      process.kill(parseUpid(upid).pid, 'SIGKILL')
      await node.task(upid, /interrupted|OK/)
      // Steps that only read may all be done by the time the signal comes.
      if ((await newest(plan))?.outcome === 'proven') break
    }
    if (toItsEnd) await toItsEnd()
    else if ((await newest(plan))?.outcome !== 'proven') await node.task(await attempt('resume'))
    const run = await newest(plan)
    assert.equal(run?.outcome, 'proven', JSON.stringify(run?.steps))
    return run
  }

  test('the first backup is restored to a new guest that answers, killed at each step, and the plan says so itself', async () => {
    const name = 'first-restore.ja.md'
    const file = await copied(name)
    const [before, text] = [await things(node), await readFile(file, 'utf8')]

    const run = await killedAtEachStep(name, {}, async () => {
      const { code, err } = await hako('plan', 'resume', file)
      assert.equal(code, 0, err)
    })

    assert.deepEqual(run.made, [])
    assert.deepEqual(await things(node), before)
    const { status, boxes } = await standingOf(file)
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
    assert.equal((await hako('plan', 'lint', file)).out, '')
  })

  test('evidence that was tampered with proves nothing: its boxes are claimed', async () => {
    const file = join(node.settings.stateDir, 'project/plans/first-restore.ja.md')
    const [, evidence = ''] = / (\d{8}T\S+-plan-\S+) -->/.exec(await readFile(file, 'utf8')) ?? []
    const record = join(node.settings.stateDir, 'evidence', evidence, 'record.json')
    const good = await readFile(record, 'utf8')
    await writeFile(record, good.replace('"tries": 1', '"tries": 2'))
    const fallen = await standingOf(file)
    assert.equal(fallen.status, 'claimed')
    for (const box of fallen.boxes)
      assert.equal(box.status, box.evidence === evidence ? 'claimed' : 'proven', box.words)
    await writeFile(record, good)
    assert.equal((await standingOf(file)).status, 'proven')
  })

  test('a run outlives its daemon', async () => {
    const name = 'execplan-ja-part1-ch2-architecture.md'
    const document = await readFile(join(root, 'plans', name), 'utf8')
    const upid = await node.api('POST', '/hako/plans', { plan: `plans/${name}`, document })
    const hasBegun = async () => (await newest(`plans/${name}`))?.steps['node-answers'] !== undefined
    await waitFor(hasBegun, { what: 'the first step', timeoutMs: 30_000, everyMs: 5 })
    await node.kill9()
    await node.restart()
    await node.task(upid)
    assert.equal((await newest(`plans/${name}`))?.outcome, 'proven')
  })

  test('a damaged guest is restored over when its name was typed, and not before', async () => {
    const name = 'restore-over.en.md'
    const before = await things(node)
    const document = await readFile(join(root, 'plans', name), 'utf8')
    const untyped = await hako('plan', 'run', await copied(name))
    assert.deepEqual(
      [untyped.code, /guest\/9101 is destroyed only when its name is typed/.test(untyped.err)],
      [2, true],
    )
    const unconfirmed = await node.api('POST', '/hako/plans', { plan: `plans/${name}`, document })
    await node.task(unconfirmed, /guest\/9101 is destroyed only when its name is typed/)
    assert.deepEqual(await things(node), before)
    await killedAtEachStep(name, { confirm: ['guest/9101'] })
    assert.deepEqual(await things(node), before)
  })

  test('the monthly review drills the newest backup, and its figures are on record', async () => {
    await node.task(await node.api('POST', `/nodes/${node.settings.node}/vzdump`, { vmid: '100', storage: 'local' }))
    const before = await things(node)
    const run = await killedAtEachStep('monthly-review.ja.md')
    assert.match(String(run.steps['on-record']?.recorded?.quote as string), /^VM 100 proven to L5/)
    assert.deepEqual(await things(node), before)
  })

  test('an operator is added once, holds what is needed, and a second run changes nothing', async () => {
    const secret = ['password=correct-horse-battery']
    const access = async () => [
      await node.api('GET', '/access/users'),
      await node.api('GET', '/access/acl'),
      await node.api('GET', '/access/roles/GuestOperator'),
    ]
    await killedAtEachStep('onboard-operator.en.md', { secret })
    const after = await access()
    const file = await copied('onboard-operator.en.md')
    const place = join(node.settings.stateDir, 'first-password')
    await writeFile(place, 'correct-horse-battery\n', { mode: 0o600 })
    const shown = await hako('plan', 'run', file, '--var', 'password=correct-horse-battery')
    assert.match(shown.err, /'password' is a secret: it is named, not given/)
    const again = await hako('plan', 'run', file, '--var', `password=file:${place}`)
    assert.equal(again.code, 0, again.err)
    assert.equal((await standingOf(file)).status, 'proven')
    assert.deepEqual(await access(), after)
    const told = [
      again.out,
      again.err,
      await readFile(file, 'utf8'),
      JSON.stringify(await newest('plans/onboard-operator.en.md')),
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
      const before = await things(node)
      const run = await killedAtEachStep('datastore-full.ja.md', { var: [`path=${path}`] })
      assert.match(run.steps.fails?.found ?? '', /it failed, as it should/)
      assert.deepEqual(await things(node), before)
    } finally {
      await machine().run(['umount', path])
    }
  })

  test('the key of the node is lost: the paper alone brings all back, the lost key opens nothing, no pack is written anew', async () => {
    const { key: paper } = (await node.api('POST', '/hako/recovery-key', { replace: '1' })) as { key: string }
    await node.api('PUT', '/hako/recovery-key', { key: paper })
    await node.task(await node.api('POST', `/nodes/${node.settings.node}/vzdump`, { vmid: '100', storage: 'local' }))
    const name = 'key-loss.ja.md'
    const [before, stored] = [await things(node), await packs(node)]
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

    await killedAtEachStep(name, { secret, confirm: ['key/node'] })

    assert.deepEqual(await things(node), before)
    assert.notDeepEqual(await readFile(own), lost)
    const still = new Set(await packs(node))
    assert.deepEqual(
      stored.filter((pack) => !still.has(pack)),
      [],
    )
    const { stdout } = await machine().run(['grep', '-rl', paper, node.settings.stateDir], { okCodes: [0, 1] })
    assert.equal(stdout, '')
  })

  for (const chapter of ['execplan-ja-part1-ch2-architecture.md', 'execplan-ja-part3-ch8-backup.md']) {
    test(`the plan of a chapter closes all of its boxes by running: ${chapter}`, async () => {
      const before = await things(node)
      await killedAtEachStep(chapter)
      assert.deepEqual(await things(node), before)
    })
  }

  test('a run may do what its starter may, and no more', async () => {
    await node.api('POST', '/access/users', { userid: 'auditor@pve' })
    await node.api('PUT', '/access/acl', { path: '/', users: 'auditor@pve', roles: 'PVEAuditor' })
    const token = (await node.api('POST', '/access/users/auditor@pve/token/plan', { privsep: '0' })) as {
      value: string
    }
    const before = await things(node)
    const name = 'first-restore.en.md'
    const document = await readFile(join(root, 'plans', name), 'utf8')
    using transport = unixTransport(node.connection.socketPath)
    const credentials = { kind: 'token', token: `auditor@pve!plan=${token.value}` } as const
    const auditor = apiClient(transport.send, { credentials: () => credentials })
    const { data } = await auditor.raw('POST', '/hako/plans', { plan: `plans/${name}`, document })
    const { log } = await node.task(data, /failed at 'backup': Permission check failed/)
    assert.match(log, /storage-takes-backups proven/)
    assert.deepEqual(await things(node), before)
    await node.task(await node.api('POST', '/hako/plans', { plan: `plans/${name}`, document, mode: 'undo' }))
  })
})

async function things(node: TestNode): Promise<unknown> {
  const guests = (await node.api('GET', '/cluster/resources', { type: 'vm' })) as { vmid: number }[]
  const content = (await node.api('GET', `/nodes/${node.settings.node}/storage/local/content`)) as { volid: string }[]
  return [guests.map(({ vmid }) => vmid).toSorted((a, b) => a - b), content.map(({ volid }) => volid).toSorted()]
}

/** Each with its inode and the moment it was written: one that is written anew is another. */
async function packs({ settings }: TestNode): Promise<string[]> {
  const found = [
    'find',
    settings.stateDir,
    '-path',
    '*/packs/*',
    '-type',
    'f',
    '-printf',
    String.raw`%p %i %T@\n`,
  ] as const
  const { stdout } = await machine().run([...found])
  const all = stdout.trimEnd().split('\n').toSorted()
  assert.ok(all.length > 1, stdout)
  return all
}
