/** Shipped plans, run on a real node: what they promise is asked of the guests, and nothing of them is left over. */
import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import type { RunState } from '#plans/run-state.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'

const plans = join(import.meta.dirname, '../../plans')

suite('executable plans', { timeout: 900_000 }, () => {
  let node: TestNode
  before(async () => {
    node = await nodeUnderTest()
    await writeFile(join(node.settings.stateDir, 'lab'), 'A lab, as far as this test goes.\n')
    await node.boot(100)
  })
  after(() => node[Symbol.asyncDispose]())

  const start = async (plan: string, params: Record<string, string | string[]> = {}) => {
    const document = await readFile(join(plans, plan), 'utf8')
    return node.api('POST', '/hako/plans', { plan: `plans/${plan}`, document, ...params })
  }
  const newest = async (plan: string): Promise<RunState> => {
    const [run] = (await node.api('GET', '/hako/plans', { plan: `plans/${plan}` })) as { run: string }[]
    return (await node.api('GET', `/hako/plans/${run?.run}`)) as RunState
  }

  test('the first backup is restored to a new guest that answers, twice, and nothing is left over', async () => {
    const before = await things(node)
    for (const round of [1, 2]) {
      const { log } = await node.task(await start('first-backup.en.md'))
      assert.match(log, /answers proven/, `round ${round}`)
      const run = await newest('first-backup.en.md')
      assert.equal(run.outcome, 'proven')
      assert.deepEqual(run.made, [])
      assert.deepEqual(await things(node), before)
    }
  })
})

async function things(node: TestNode): Promise<unknown> {
  const guests = (await node.api('GET', '/cluster/resources', { type: 'vm' })) as { vmid: number }[]
  const content = (await node.api('GET', `/nodes/${node.settings.node}/storage/local/content`)) as { volid: string }[]
  return [guests.map(({ vmid }) => vmid).toSorted(), content.map(({ volid }) => volid).toSorted()]
}
