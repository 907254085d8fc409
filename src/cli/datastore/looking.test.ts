/** Looking at what is in a datastore: lists, versions of a file, what changed, notes, what would be done. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { appendFile, chmod, link, mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { datastoreCommand, good, hako } from '../../../test/fixtures/datastore-command.ts'
import type { Difference, Version } from './comparing.ts'

const home = await mkdtemp(join(tmpdir(), 'hako-looking-'))
const [store, key, recovery] = [join(home, 'store'), join(home, 'key'), join(home, 'recovery')]
const [tree, image] = [join(home, 'home'), join(home, 'web.raw')]
/** The two backups of both, the older first. */
const names: string[] = []

before(async () => {
  good('key', 'make', key)
  // From here on the environment says how it is opened, as in the scripts of those who back up every night.
  process.env.HAKO_KEY_FILE = key
  await writeFile(recovery, good('init', store))
  good('key', 'confirm', store, '--recovery-key-file', recovery)
  await mkdir(join(tree, 'docs'), { recursive: true })
  await writeFile(join(tree, 'docs/letter'), 'dear all')
  await writeFile(join(tree, 'docs/old'), 'no longer wanted')
  await writeFile(join(tree, 'docs/scratch.tmp'), 'of no use')
  await writeFile(join(tree, 'tool'), '#!/bin/sh\n')
  await link(join(tree, 'tool'), join(tree, 'tool-too'))
  await writeFile(image, Buffer.concat([randomBytes(MiB), Buffer.alloc(4 * MiB), randomBytes(MiB)]))
  await writeFile(join(home, 'patterns'), '# scratch\n*.tmp\n\n')
  backUp('--notes', 'before the upgrade')
  await appendFile(join(tree, 'docs/letter'), ', dear you')
  await rm(join(tree, 'docs/old'))
  await chmod(join(tree, 'tool'), 0o700)
  await mkdir(join(tree, 'new'))
  await using file = await open(image, 'r+')
  await file.write('changed', 5 * MiB)
  backUp()
})
after(async () => {
  delete process.env.HAKO_KEY_FILE
  await rm(home, { recursive: true })
})

function backUp(...more: readonly string[]): void {
  const given = ['--id', 'both', '--exclude-file', join(home, 'patterns'), ...more]
  names.push(good('backup', store, image, tree, ...given, '-o', 'id').trim())
}

function json<T>(...args: readonly string[]): T {
  return JSON.parse(good(...args, '-o', 'json')) as T
}

test('a list says how much is in each backup where a key is given, and is of those that were asked for', () => {
  const rows = json<{ backup: string; size?: number; notes?: string; paths?: string[] }[]>('list', store, 'host/both')
  assert.deepEqual(
    rows.map(({ backup, notes }) => [backup, notes]),
    [
      [names[0], 'before the upgrade'],
      [names[1], undefined],
    ],
  )
  assert.ok((rows[0]?.size ?? 0) > 6 * MiB)
  assert.deepEqual(rows[0]?.paths, [image, tree])
  const none = hako('list', store, 'host/other')
  assert.equal(none.code, 3)
  assert.match(none.err, /backup 'host\/other' does not exist/)
})

test('what came, went or changed between two backups is told, of files each and of disks how much', () => {
  // The last digit may be left out: only one name begins so, or the newest is meant.
  const all = json<Difference[]>('diff', store, names[0] ?? '', 'host/both')
  assert.deepEqual(
    all.map(({ change, part, path, what, differs }) => [change, part, path, what ?? differs]),
    [
      ['changed', 'drive0', undefined, 128 * 1024],
      ['added', 'tree0', '/new/', undefined],
      ['changed', 'tree0', '/tool', 'mode'],
      ['changed', 'tree0', '/docs/letter', 'content'],
      ['removed', 'tree0', '/docs/old', undefined],
    ],
  )
  const below = json<Difference[]>('diff', store, names[0] ?? '', 'host/both', '/docs/letter')
  assert.deepEqual(
    below.map(({ path, size, was }) => [path, size, was]),
    [['/docs/letter', 18, 8]],
  )
  assert.deepEqual(json('diff', store, 'host/both', 'host/both'), [])
  assert.match(hako('diff', store, names[0] ?? '', 'host/both', '/none').err, /'none' does not exist/)
})

test('each version of a file is found, with the last backup it is in', () => {
  const versions = json<Version[]>('find', store, 'letter')
  assert.deepEqual(
    versions.map(({ path, size, backups, backup }) => [path, size, backups, backup]),
    [
      ['/docs/letter', 8, 1, names[0]],
      ['/docs/letter', 18, 1, names[1]],
    ],
  )
  // A further name has no facts of its own; what was excluded is nowhere.
  assert.deepEqual(
    json<Version[]>('find', store, 'tool-too').map(({ size, mtime }) => [size, mtime > 0]),
    [[10, true]],
  )
  assert.deepEqual(json('find', store, '*.tmp'), [])
  assert.match(good('files', store, 'host/both', '/'), /0700 +0 +0 +10 B .* tool-too +tool/)
})

test('what would be backed up is told before, without a key', () => {
  delete process.env.HAKO_KEY_FILE
  try {
    const rows = json<{ entries?: number; excluded?: number; data?: number; examples?: string[] }[]>(
      'backup',
      store,
      tree,
      image,
      '--dry-run',
      '--exclude',
      '*.tmp',
    )
    assert.deepEqual(rows[0]?.excluded, 1)
    assert.match(String(rows[0]?.examples), /docs\/scratch\.tmp/)
    assert.equal(rows[0]?.entries, 6)
    assert.ok((rows[1]?.data ?? 0) >= 2 * MiB)
    assert.equal(json<unknown[]>('list', store).length, 2)
  } finally {
    process.env.HAKO_KEY_FILE = key
  }
})

test('a disk, or a tree as an archive, goes to standard output', async () => {
  const raw = to('restore', store, 'host/both', '-', '--disk', 'drive0')
  assert.ok(raw.equals(await readFile(image)))
  const listed = spawnSync('tar', ['-t'], { input: to('restore', store, 'host/both', '-', '--tree', 'tree0') })
  assert.match(listed.stdout.toString(), /docs\/letter/)
})

function to(...args: readonly string[]): Buffer {
  const { status, stdout, stderr } = spawnSync(process.execPath, [...datastoreCommand, ...args], {
    maxBuffer: 64 * MiB,
  })
  assert.equal(status, 0, stderr.toString())
  return stdout
}

test('a protected backup outlasts its retention, which may be of some guests alone; figures are told', () => {
  good('backup', store, tree, '--id', 'other')
  good('set', store, names[0] ?? '', '--protected', '--notes', 'kept for the audit')
  const planned = hako('prune', store, 'host/both', '--keep-last', '1', '--dry-run', '-o', 'json')
  assert.match(planned.err, /0 would be removed, 2 would stay/)
  assert.deepEqual(
    (JSON.parse(planned.out) as { mark: string }[]).map(({ mark }) => mark),
    ['protected', 'keep'],
  )
  good('set', store, names[0] ?? '', '--no-protected')
  assert.match(hako('prune', store, 'host/both', '--keep-last', '1').err, /1 removed, 1 stay[^]*hako datastore gc/)
  const { backups, guests, stored, data } = json<Record<string, number>>('stats', store)
  assert.deepEqual([backups, guests], [2, 2])
  assert.ok((stored ?? 0) > 2 * MiB && (data ?? 0) > 2 * MiB)
  assert.equal(hako('set', store, 'host/both').code, 2)
})
