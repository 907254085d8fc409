/**
 * How long a person waits for `hako vm list` as a whole process, through the launcher, beside the least any
 * Node program can take. Goal with 200 guests on a quiet machine: under 100 ms.
 *
 *   node bench/vm-list.ts [guests] [rounds]
 */
import { join } from 'node:path'
import { benchNode } from './bench-node.ts'
import { compare, printProcesses } from './process.ts'

const [guests = 200, rounds = 21] = process.argv.slice(2).map(Number)
const hako = join(import.meta.dirname, '../hako')

await using node = await benchNode({ guests })
process.env.HAKO_RUN_DIR = node.settings.runDir
const list = [hako, 'vm', 'list'] as const
const figures = compare(
  {
    'node -e 0': [process.execPath, '-e', '0'],
    [`hako vm list, ${guests} guests`]: list,
    [`hako vm list -o json, ${guests} guests`]: [...list, '-o', 'json'],
    'hako completion bash (asks no node)': [hako, 'completion', 'bash'],
  },
  rounds,
)
printProcesses(figures, 'node -e 0')
