/**
 * How long a person waits for `hako vm list` with 200 guests, as a whole process, beside the least any
 * Node program can take. Goal on a quiet machine: under 100 ms.
 *
 *   node bench/vm-list.ts [guests] [rounds]
 */
import { join } from 'node:path'
import { nodeUnderTest } from '../test/node-under-test.ts'
import { compare, printTable } from './process.ts'

const [guests = 200, rounds = 15] = process.argv.slice(2).map(Number)
const hako = join(import.meta.dirname, '../hako')

await using node = await nodeUnderTest()
for (let vmid = 100; vmid < 100 + guests; vmid += 1) {
  await node.task(
    await node.api('POST', `/nodes/${node.settings.node}/qemu`, {
      vmid: String(vmid),
      name: `guest-${vmid}`,
      memory: '64',
    }),
  )
}
process.env.HAKO_RUN_DIR = node.settings.runDir
const list = [hako, 'vm', 'list'] as const
printTable(
  compare(
    {
      'node -e 0': [process.execPath, '-e', '0'],
      [`hako vm list (${guests})`]: list,
      'hako vm list -o json': [...list, '-o', 'json'],
    },
    rounds,
  ),
  'node -e 0',
)
