/** What the daemon does without being asked: run jobs that are due, and write down how things are. */
import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { parseUpid } from '#tasks/upid.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

let node: TestNode
let at: string
const closing = new AsyncDisposableStack()

before(async () => {
  node = closing.use(await nodeUnderTest())
  at = `/nodes/${node.settings.node}`
})
after(() => closing.disposeAsync())

test('a job that is due is run by the daemon, and not again while it runs; root’s script hears of it', async () => {
  const [hook, said] = [join(node.settings.stateDir, 'hook'), join(node.settings.stateDir, 'said')]
  await writeFile(hook, `#!/bin/sh\necho "$1" >> ${said}\n`, { mode: 0o755 })
  await node.task(await node.api('POST', `${at}/qemu`, { vmid: '100', scsi0: 'local:0.01' }))
  await node.api('POST', '/cluster/backup', {
    id: 'often',
    schedule: '*:*:0/2',
    all: '1',
    storage: 'local',
    script: hook,
  })
  const runs = async () =>
    (await node.api('GET', `${at}/tasks`, { typefilter: 'vzdump' })) as { upid: string; user: string }[]
  const [first] = await waitFor(async () => ((await runs()).length > 0 ? runs() : undefined), {
    what: 'a run of the job',
    timeoutMs: 60_000,
    everyMs: 200,
  })
  assert.equal(first?.user, 'root@pam')
  await node.task(first?.upid)
  await node.api('PUT', '/cluster/backup/often', { enabled: '0' })
  const phases = (await readFile(said, 'utf8')).split('\n')
  for (const phase of ['job-start', 'backup-start', 'backup-end', 'job-end']) assert.ok(phases.includes(phase), phase)
  const last = await waitFor(
    async () => {
      const job = (await node.api('GET', '/cluster/backup/often')) as { 'last-run': number; 'last-result': string }
      return job['last-result'] === 'RUNNING' ? undefined : job
    },
    { what: 'the end of the last run', timeoutMs: 60_000 },
  )
  assert.equal(last['last-result'], 'OK')
  assert.ok(last['last-run'] >= parseUpid(first?.upid ?? '').starttime)
  const backups = (await node.api('GET', `${at}/storage/local/content`, { content: 'backup' })) as { vmid: number }[]
  assert.ok(backups.length > 0 && backups.every(({ vmid }) => vmid === 100))
})

test('how the node is, is written down from its start on', async () => {
  const measured = async () => {
    const rows = (await node.api('GET', `${at}/rrddata`, { timeframe: 'hour' })) as { memtotal?: number }[]
    return rows.findLast(({ memtotal }) => memtotal !== undefined)
  }
  const row = await waitFor(measured, { what: 'the first measurement', timeoutMs: 60_000, everyMs: 200 })
  const { memory } = (await node.api('GET', `${at}/status`)) as { memory: { total: number } }
  assert.equal(row.memtotal, memory.total)
})

test('jobs and history outlive the daemon', async () => {
  await node.kill9()
  await node.restart()
  const [job] = (await node.api('GET', '/cluster/backup')) as { id: string; enabled: number }[]
  assert.deepEqual([job?.id, job?.enabled], ['often', 0])
  const rows = (await node.api('GET', `${at}/rrddata`, { timeframe: 'day' })) as { memtotal?: number }[]
  assert.ok(rows.some(({ memtotal }) => memtotal !== undefined))
})
