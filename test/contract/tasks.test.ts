/** Tasks as clients follow them: at once after the start, line by line, and to the end. */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'
import { type Ask, form, logIn, method, proofOf, publicPort, tokenProof } from './public-port.ts'

const at = '/nodes/testnode'
const closing = new AsyncDisposableStack()
let node: TestNode
let ask: Ask
let asToken: Ask
let asOther: Ask

before(async () => {
  node = closing.use(await nodeUnderTest())
  const base = `${node.url}/api2/json`
  const password = 'correct horse battery'
  for (const userid of ['one@pve', 'other@pve']) {
    await node.api('POST', '/access/users', { userid, password })
    await node.api('PUT', '/access/acl', { path: '/vms', users: userid, roles: 'PVEVMAdmin' })
  }
  ask = publicPort(base, proofOf(await logIn(base, 'one@pve', password)))
  asOther = publicPort(base, proofOf(await logIn(base, 'other@pve', password)))
  const token = (await node.api('POST', '/access/users/one@pve/token/ci', { privsep: '0' })) as { value: string }
  asToken = publicPort(base, tokenProof('one@pve!ci', token.value))
})
after(() => closing.disposeAsync())

interface Facts extends Readonly<Record<string, unknown>> {
  readonly status: string
}

const factsOf = async (upid: string, who = ask): Promise<Facts> =>
  (await who(`${at}/tasks/${encodeURIComponent(upid)}/status`)).data as Facts

async function create(vmid: number, who = ask): Promise<string> {
  const made = await who(`${at}/qemu`, ...form({ vmid: String(vmid), memory: '32' }))
  assert.equal(made.status, 200, made.reason)
  return String(made.data)
}

describe('a task', () => {
  test('answers at once, each time, and is known before anybody can ask', async () => {
    for (let vmid = 200; vmid < 210; vmid += 1) {
      const started = performance.now()
      const upid = String(await node.api('POST', `${at}/qemu`, { vmid: String(vmid), memory: '32' }))
      assert.ok(performance.now() - started < 5_000, 'clients wait no longer')
      // The local socket asks faster than any client could.
      const { status, exitstatus } = (await node.api('GET', `${at}/tasks/${upid}/status`)) as Facts
      assert.ok(
        status === 'running' ? exitstatus === undefined : exitstatus === 'OK',
        `${status} ${String(exitstatus)}`,
      )
      await node.task(upid)
    }
  })

  test('is named in nine parts that say what its status says', async () => {
    const upid = await create(220, asToken)
    const [, name, pid = '', pstart = '', starttime = '', type, id, user, last, ...more] = upid.split(':')
    assert.deepEqual([name, type, id, user, last, more], ['testnode', 'qmcreate', '220', 'one@pve!ci', '', []])
    await node.task(upid)
    const { phase: _, fraction: __, ...facts } = await factsOf(upid, asToken)
    assert.deepEqual(facts, {
      upid,
      node: 'testnode',
      pid: Number.parseInt(pid, 16),
      pstart: Number.parseInt(pstart, 16),
      starttime: Number.parseInt(starttime, 16),
      type: 'qmcreate',
      id: '220',
      user: 'one@pve',
      tokenid: 'ci',
      status: 'stopped',
      exitstatus: 'OK',
    })
  })

  test('is found by its path raw and escaped', async () => {
    const upid = await create(221)
    await node.task(upid)
    for (const name of [upid, encodeURIComponent(upid), upid.replaceAll(':', '%3a')]) {
      assert.equal((await ask(`${at}/tasks/${name}/status`)).status, 200, name)
      assert.deepEqual((await ask(`${at}/tasks/${name}`)).data, [{ name: 'log' }, { name: 'status' }])
    }
  })

  test('has a log in pages of numbered lines with their total, or as a file', async () => {
    const upid = await create(222)
    await node.task(upid)
    const saved = String(await node.api('POST', `${at}/vzdump`, { vmid: '222', storage: 'local' }))
    // There is no disk in it, which is worth a warning.
    await node.task(saved, /^WARNINGS: 1$/)
    const asRoot = async (query: string) => {
      const { data, total } = await node.connection.call('GET', `${at}/tasks/${saved}/log${query}`)
      return { lines: data as { n: number; t: string }[], total }
    }
    const whole = await asRoot('?limit=0')
    assert.ok(whole.lines.length >= 4, JSON.stringify(whole))
    assert.deepEqual(
      whole.lines.map(({ n }) => n),
      whole.lines.map((_, index) => index + 1),
    )
    assert.equal(whole.lines.at(-1)?.t, 'TASK WARNINGS: 1')
    assert.equal(whole.total, whole.lines.length)
    const page = await asRoot('?start=1&limit=2')
    assert.deepEqual(page, { lines: whole.lines.slice(1, 3), total: whole.total })
    assert.deepEqual((await asRoot(`?start=${whole.lines.length}`)).total, whole.total)
    const file = await ask(`${at}/tasks/${upid}/log?download=1`)
    assert.match(file.headers['content-type'] ?? '', /^text\/plain/)
    assert.match(file.headers['content-disposition'] ?? '', /^attachment; filename="task-qmcreate-/)
    assert.match(file.body, /TASK OK\n?$/)
    assert.equal((await ask(`${at}/tasks/${upid}/log?download=1&limit=5`)).status, 400)
  })

  test('that fails says why, in its status, its log and the list', async () => {
    const text = 'VM 230 not running'
    await node.task(await create(230))
    const upid = String((await ask(`${at}/qemu/230/status/reset`, ...method('POST'))).data)
    const { log } = await node.task(upid, /./)
    assert.equal(log.split('\n').at(-1), `TASK ERROR: ${text}`)
    assert.equal((await factsOf(upid)).exitstatus, text)
    const list = await ask(`${at}/tasks?errors=1&vmid=230`)
    assert.deepEqual([(list.data as Facts[]).map(({ status }) => status), list.json.total], [[text], 1])
  })

  test('is stopped by whoever began it', async () => {
    await node.task(await create(240))
    await node.task((await ask(`${at}/qemu/240/status/start`, ...method('POST'))).data)
    // A guest without a system hears no power button.
    const upid = String((await ask(`${at}/qemu/240/status/shutdown`, ...form({ timeout: '600' }))).data)
    const active = (await ask(`${at}/tasks?source=active`)).data as Facts[]
    assert.deepEqual(
      active.map((one) => [one.upid, one.status]),
      [[upid, 'RUNNING']],
    )
    const refused = await asOther(`${at}/tasks/${upid}`, ...method('DELETE'))
    assert.deepEqual([refused.status, refused.reason], [403, 'Permission check failed (/nodes/testnode, Sys.Modify)'])
    const stopped = await ask(`${at}/tasks/${upid}`, ...method('DELETE'))
    assert.deepEqual([stopped.status, stopped.data], [200, null])
    const { exitstatus } = await node.task(upid, /./)
    assert.match(exitstatus, /interrupted|aborted|unexpected status/)
    assert.equal(((await ask(`${at}/qemu/240/status/current`)).data as Facts).status, 'running')
  })
})

describe('the list of tasks', () => {
  const upidsOf = async (who: Ask, query: string) => ((await who(query)).data as Facts[]).map(({ upid }) => upid)

  test('shows everybody their own, with those of their tokens, newest first', async () => {
    const first = await create(250)
    await node.task(first)
    const second = await create(251, asToken)
    await node.task(second)
    const third = await create(252, asOther)
    await node.task(third)
    assert.deepEqual(new Set(await upidsOf(ask, `${at}/tasks?limit=2`)), new Set([first, second]))
    assert.deepEqual(await upidsOf(asOther, `${at}/tasks`), [third])
    assert.ok((await upidsOf(ask, '/cluster/tasks')).includes(second))
    assert.ok(!(await upidsOf(ask, '/cluster/tasks')).includes(third))
    assert.equal((await asOther(`${at}/tasks/${first}/log`)).status, 403)
    const [newest] = (await node.api('GET', `${at}/tasks`, { limit: '1' })) as Facts[]
    assert.equal(newest?.upid, third)
  })

  test('is filtered and paged, and counts all', async () => {
    const { data, json } = await ask(`${at}/tasks?typefilter=qmcreate&limit=1&start=1`)
    assert.equal((data as Facts[]).length, 1)
    assert.ok(Number(json.total) > 1)
    for (const query of ['typefilter=nothing', 'userfilter=nobody', 'vmid=99999', 'until=1', 'statusfilter=unknown']) {
      const none = await ask(`${at}/tasks?${query}`)
      assert.deepEqual([none.data, none.json.total], [[], 0], query)
    }
    const good = (await ask(`${at}/tasks?statusfilter=ok&limit=0`)).data as Facts[]
    assert.ok(good.every(({ status }) => status === 'OK'))
  })
})
