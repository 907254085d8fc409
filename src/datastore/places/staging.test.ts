import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { nodeFlags } from '#base/node-flags.ts'

const program = join(import.meta.dirname, '../../../test/fixtures/staging-loop.ts')

test('of many who come at once each gets a folder of its own, and what the dead left goes', async () => {
  const home = await mkdtemp(join(tmpdir(), 'hako-staging-'))
  try {
    await mkdir(join(home, 'left'))
    await writeFile(join(home, 'left.held'), '')
    const rounds = 300
    const run = promisify(execFile)
    const args = [...nodeFlags, program, home, String(rounds)]
    const said = await Promise.all([0, 1, 2].map(() => run(process.execPath, args)))
    const paths = said.flatMap(({ stdout }) => stdout.trim().split('\n'))
    assert.equal(new Set(paths).size, 3 * rounds)
    assert.deepEqual(await readdir(home), [])
  } finally {
    await rm(home, { recursive: true })
  }
})
