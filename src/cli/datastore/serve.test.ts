/** `hako datastore serve`, as two machines use it: one makes backups, the other keeps copies the first cannot destroy. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { datastoreCommand, good, hako } from '../../../test/fixtures/datastore-command.ts'

const home = await mkdtemp(join(tmpdir(), 'hako-serve-cli-'))
after(() => rm(home, { recursive: true }))
process.env.XDG_CACHE_HOME = join(home, 'cache')
const [store, key, image, served] = [
  join(home, 'store'),
  join(home, 'key'),
  join(home, 'web.raw'),
  join(home, 'served'),
]
async function serve(listen: string) {
  const flags = ['serve', served, '--listen', listen, '--token-file', join(home, 'tokens')]
  const child = spawn(process.execPath, [...datastoreCommand, ...flags], { stdio: ['ignore', 'pipe', 'inherit'] })
  after(() => child.kill('SIGKILL'))
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string]
  const [, address = '', fingerprint = ''] = /at (\S+:\d+)\. .*: (\S+)$/.exec(line) ?? []
  return { child, address, fingerprint }
}

test('a copy behind a server takes what comes, survives its death, and is not destroyed by who sends it', async () => {
  await writeFile(key, randomBytes(32))
  await mkdir(served)
  const content = randomBytes(40 * MiB)
  await writeFile(image, content)
  await writeFile(join(home, 'recovery'), good('init', store, '--key-file', key))
  good('key', 'confirm', store, '--recovery-key-file', join(home, 'recovery'))
  good('backup', store, image, '--key-file', key)
  for (const [name, rights] of [
    ['site', 'write'],
    ['reader', 'read'],
    ['keeper', 'read,delete'],
  ] as const) {
    await writeFile(join(home, name), good('token', join(home, 'tokens'), name, '--rights', rights), { mode: 0o600 })
  }
  assert.ok(
    !(await readFile(join(home, 'tokens'), 'utf8')).includes((await readFile(join(home, 'site'), 'utf8')).trim()),
  )
  const first = await serve('127.0.0.1:0')
  const reach = (name: string, kind = '') => [
    `--${kind}token-file`,
    join(home, name),
    `--${kind}fingerprint`,
    first.fingerprint,
  ]
  const url = `https://${first.address}/site`
  // Slow enough to die in the middle.
  const args = ['sync', store, url, ...reach('site', 'copy-'), '--bwlimit', '8192']
  const pushing = spawn(process.execPath, [...datastoreCommand, ...args], { stdio: 'ignore' })
  const isArriving = async () => (await readdir(join(served, 'site/tmp')).catch(() => [])).length > 0
  await waitFor(isArriving, { what: 'the first pack', timeoutMs: 30_000 })
  pushing.kill('SIGKILL')
  first.child.kill('SIGKILL')
  await Promise.all([once(pushing, 'close'), once(first.child, 'close')])
  const second = await serve(first.address)
  assert.equal(second.fingerprint, first.fingerprint)
  const { backups } = JSON.parse(good(...args.slice(0, -2), '-o', 'json')) as { backups: number }
  assert.equal(backups, 1)
  assert.match(good('canary', url, ...reach('site')), /delete.*true/)
  const name = good('list', url, ...reach('reader'), '-o', 'id').trim()
  assert.equal(hako('remove', url, name, ...reach('site')).code, 4)
  good('restore', url, name, join(home, 'back.raw'), ...reach('reader'), '--key-file', key)
  assert.ok((await readFile(join(home, 'back.raw'))).equals(content))
  // Whoever prunes shows a token that may.
  const pruning = ['prune', url, '--keep-last', '1']
  good('backup', store, image, '--key-file', key)
  good(...args.slice(0, -2))
  const refused = hako(...pruning, ...reach('site'))
  assert.equal(refused.code, 4)
  assert.match(refused.err, /the token adds, and removes nothing: '(?:marks|backups)\/_\/host\/web\//)
  good(...pruning, ...reach('keeper'))
  assert.ok(!good('list', url, ...reach('reader'), '-o', 'id').includes(name))
  second.child.kill('SIGTERM')
  const [code] = (await once(second.child, 'exit')) as [number | null]
  assert.equal(code, 0)
})
