/** The recipes of the documentation, run as they stand with Debian's curl and jq. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { machine } from '#host/exec.ts'
import { ensureGuestImage } from '#lab/guest-image.ts'
import { ownBridge } from '../../src/settings.ts'
import { nodeUnderTest } from '../node-under-test.ts'

const page = join(import.meta.dirname, '../../docs/recipes/curl.md')

test('every block of the curl recipes works, one after the other', { timeout: 600_000 }, async (t) => {
  await using node = await nodeUnderTest({ client: 'curl' })
  const { settings } = node
  const scratch = await mkdtemp(join(tmpdir(), 'hako-recipes-'))
  t.after(() => rm(scratch, { recursive: true }))
  const user = 'ci@pve'
  const password = 'correct & horse = battery'
  await node.api('POST', '/access/users', { userid: user, password })
  await node.api('PUT', '/access/acl', { path: '/', users: user, roles: 'Administrator' })
  const [certificate] = (await node.api('GET', `/nodes/${settings.node}/certificates/info`)) as {
    pem: string
    fingerprint: string
  }[]
  await writeFile(join(scratch, 'ca.pem'), certificate?.pem ?? '')
  const image = await ensureGuestImage({ host: machine(), cacheDir: settings.cacheDir })
  const blocks = [...(await readFile(page, 'utf8')).matchAll(/^```sh\n(.*?)^```/gms)].map(([, block = '']) => block)
  assert.ok(blocks.length > 8)
  // Each block says where it begins, so that what it printed can be told apart.
  const script = blocks.map((block, at) => `echo "== ${at}"\n${block}`).join('\n')
  const { stdout } = await promisify(execFile)('/bin/bash', ['-euo', 'pipefail', '-c', script], {
    cwd: scratch,
    timeout: 300_000,
    env: {
      PATH: '/usr/bin:/bin',
      API: `${node.url}/api2/json`,
      CA: join(scratch, 'ca.pem'),
      NODE: settings.node,
      WHO: user,
      PASSWORD: password,
      BRIDGE: ownBridge(settings),
      IMAGE: image.path,
    },
  }).catch((error: { stdout?: string; stderr?: string }) => assert.fail(`${error.stdout}\n${error.stderr}`))
  const printed = new Map(
    stdout.split(/^== /m).flatMap((part) => {
      const [at = '', ...lines] = part.trimEnd().split('\n')
      return at === '' ? [] : [[blocks[Number(at)]?.split('\n')[0] ?? '', lines] as const]
    }),
  )
  const under = (words: string) => [...printed].find(([first]) => first.includes(words))?.[1] ?? assert.fail(words)
  assert.deepEqual(under("printf 'header"), [`${settings.node} online`])
  assert.match(under('content=import').join('\n'), /^(?:127\.0\.0\.1\n)?10\.181\.\d+\.\d+$/)
  assert.deepEqual(under('snapname=before'), ['web'])
  assert.deepEqual(under('/cluster/resources'), ['100\tweb\trunning', '101\tweb\tstopped'])
  assert.deepEqual(under('refused.json'), [
    '400',
    "invalid format - current: type check ('integer') failed - got 'much'",
  ])
  assert.deepEqual(under('certificates/info'), [certificate?.fingerprint])
  assert.deepEqual(await node.api('GET', '/cluster/resources', { type: 'vm' }), [])
})
