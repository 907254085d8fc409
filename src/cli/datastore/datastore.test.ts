/** `hako datastore`, as somebody types it: from nothing to a restored disk, without a node. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { machine } from '#host/exec.ts'
import { backups, diskAt } from '../../../test/fixtures/first-format/content.ts'
import { unpackedDatastore } from '../../../test/fixtures/first-format/unpacked.ts'
import { makeEveryEntry } from '../../../test/fixtures/every-entry.ts'
import { differences, treeManifest } from '../../../test/fixtures/tree-manifest.ts'
import { good, hako } from '../../../test/fixtures/datastore-command.ts'

const home = await mkdtemp(join(tmpdir(), 'hako-datastore-cli-'))
after(() => rm(home, { recursive: true }))
const [store, passphrase, image] = [join(home, 'store'), join(home, 'passphrase'), join(home, 'web.raw')]
const opening = ['--passphrase-file', passphrase]
/** A passphrase takes its time, as it should. */
const quick = ['--recovery-key-file', join(home, 'recovery')]

test('a datastore takes no backup before its recovery key was confirmed, and opens with that key alone', async () => {
  await writeFile(passphrase, 'correct horse battery\n')
  const content = Buffer.concat([randomBytes(3 * MiB), Buffer.alloc(2 * MiB), randomBytes(1_000)])
  await writeFile(image, content)
  const printed = good('init', store, ...opening).trim()
  assert.match(printed, /^(?:[A-Z2-7]{7}-){7}[A-Z2-7]{7}$/)
  const refused = hako('backup', store, image, ...opening)
  assert.equal(refused.code, 5)
  assert.match(refused.err, /nobody has confirmed the recovery key/)
  const recovery = join(home, 'recovery')
  await writeFile(recovery, `${printed.slice(0, -1)}${printed.endsWith('A') ? 'B' : 'A'}\n`)
  assert.match(hako('key', 'confirm', store, '--recovery-key-file', recovery).err, /a letter in it is wrong/)
  await writeFile(recovery, `${printed.toLowerCase().replaceAll('-', ' ')}\n`)
  good('key', 'confirm', store, '--recovery-key-file', recovery)
  const first = good('backup', store, image, ...opening, '-o', 'id').trim()
  assert.match(first, /^host\/web\/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
  good('restore', store, first, join(home, 'restored.raw'), '--recovery-key-file', recovery)
  assert.ok((await readFile(join(home, 'restored.raw'))).equals(content))
  // What is there is not written over.
  assert.equal(hako('restore', store, first, join(home, 'restored.raw'), ...opening).code, 5)
})

test('the second backup stores only what changed; a wrong passphrase opens nothing', async () => {
  const content = await readFile(image)
  content.set(randomBytes(100), MiB)
  await writeFile(image, content)
  const [{ 'new-data': stored } = { 'new-data': 0 }] = JSON.parse(
    `[${good('backup', store, image, ...opening, '-o', 'json')}]`,
  ) as { 'new-data': number }[]
  assert.ok(stored > 0 && stored < 200_000, String(stored))
  const wrong = join(home, 'wrong')
  await writeFile(wrong, 'correct horse\n')
  const denied = hako('show', store, 'host/web', '--passphrase-file', wrong)
  assert.equal(denied.code, 4)
  assert.match(denied.err, /does not open the datastore[^]*It opens by: passphrase, recovery key/)
  assert.match(good('verify', store, '--packs'), /damaged: \[\]/)
  assert.equal((JSON.parse(good('verify', store, ...opening, '-o', 'json')) as unknown[]).length, 2)
})

test('an image of another format is read as what it is', async () => {
  const qcow2 = join(home, 'disk.qcow2')
  await machine().run(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', image, qcow2])
  const name = good('backup', store, qcow2, ...opening, '--id', 'from-qcow2', '-o', 'id').trim()
  good('restore', store, name, join(home, 'from-qcow2.raw'), ...opening)
  const restored = await readFile(join(home, 'from-qcow2.raw'))
  const wanted = await readFile(image)
  // A qcow2 image ends with a whole sector.
  assert.ok(restored.subarray(0, wanted.length).equals(wanted))
  const renamed = join(home, 'guess.raw')
  await writeFile(renamed, await readFile(qcow2))
  assert.match(hako('backup', store, renamed, ...opening).err, /looks like a qcow2 image/)
})

test('a disk is served to tools of others without being restored', async () => {
  const program = join(import.meta.dirname, '../main.ts')
  const socket = join(home, 'served.sock')
  const serving = spawn(process.execPath, [program, 'datastore', 'serve-disk', store, 'host/web', socket, ...opening])
  try {
    for await (const line of serving.stderr) if (String(line).includes(socket)) break
    const [url, copy] = [`nbd+unix:///?socket=${socket}`, join(home, 'served.raw')]
    await machine().run(['qemu-img', 'convert', '-f', 'raw', '-O', 'raw', url, copy])
    const wanted = await readFile(image)
    // QEMU counts in whole sectors.
    assert.ok((await readFile(copy)).subarray(0, wanted.length).equals(wanted))
    const { stdout } = await machine().run(['qemu-img', 'map', '--output=json', '-f', 'raw', url])
    const map = JSON.parse(stdout) as { start: number; length: number; zero: boolean }[]
    assert.deepEqual(
      map.filter(({ zero, start }) => zero && start < wanted.length).map(({ start, length }) => [start, length]),
      [[3 * MiB, 2 * MiB]],
    )
  } finally {
    const ended = once(serving, 'exit')
    serving.kill('SIGINT')
    assert.deepEqual(await ended, [0, null])
  }
})

test('a directory is backed up by its files, looked into, and comes back; excludes stay out', async () => {
  const tree = join(home, 'tree')
  await mkdir(tree)
  await makeEveryEntry(tree)
  await writeFile(join(tree, 'folder/old.tmp'), 'of no use')
  const said = hako(
    'backup',
    store,
    tree,
    ...quick,
    '--id',
    'home',
    '--exclude',
    '*.tmp',
    '--exclude',
    '/none',
    '-o',
    'id',
  )
  assert.equal(said.code, 0, said.err)
  assert.match(said.err, /1 left out as excluded, 0 mounted/)
  const name = said.out.trim()
  const rows = JSON.parse(good('files', store, 'host/home', '/folder', ...quick, '-o', 'json')) as { name: string }[]
  assert.ok(rows.some((row) => row.name === 'deeper/') && !rows.some((row) => row.name === 'old.tmp'))
  assert.match(good('files', store, name, '/', ...quick), /0644 .* 684 KiB .* large/)
  const target = join(home, 'tree-restored')
  assert.match(good('restore', store, name, target, ...quick), /tree0/)
  await rm(join(tree, 'folder/old.tmp'))
  const without = { without: ['mtime'] as const }
  assert.deepEqual(differences(treeManifest(tree, without), treeManifest(target, without)), [])
  assert.match(hako('restore', store, name, target, ...quick).err, /is not empty/)
  assert.match(good('show', store, name, ...quick), /tree0/)
  assert.match(hako('files', store, 'host/web', ...quick).err, /has no files, but disks/)
})

test('a file comes out of a backup as it is, and a folder as an archive, also through a pipe', async () => {
  const got = join(home, 'got')
  good('get', store, 'host/home', '/folder/exact', got, ...quick)
  assert.ok((await readFile(got)).equals(Buffer.alloc(131_072, 'x')))
  assert.equal(hako('get', store, 'host/home', '/folder/exact', got, ...quick).code, 5)
  assert.equal(good('get', store, 'host/home', 'plain', '-', ...quick), 'text')
  for (const [form, list] of [
    ['tar', ['tar', '-tf']],
    ['tar.zst', ['tar', '--zstd', '-tf']],
    ['zip', ['unzip', '-Z1']],
  ] as const) {
    good('get', store, 'host/home', '/folder', home, '--form', form, ...quick)
    const [program, ...options] = list
    const { stdout } = await machine().run([program, ...options, join(home, `folder.${form}`)])
    assert.match(stdout, /^folder\/deeper\/su$/m, form)
  }
  assert.match(hako('get', store, 'host/home', '/pipe', '-', ...quick).err, /neither a file nor a folder: it is a pipe/)
  assert.match(hako('get', store, 'host/home', '/folder', '--form', 'rar', ...quick).err, /none of tar, tar.zst, zip/)
})

test('the backup of a guest goes elsewhere as an archive; what is of no guest does not', async () => {
  assert.match(hako('export', store, 'host/home', '-', ...quick).err, /is of no guest/)
  good('backup', store, image, ...quick, '--type', 'vm', '--id', '100')
  assert.match(hako('export', store, 'vm/100', home, ...quick).err, /has no qemu-server\.conf/)
  assert.deepEqual(
    (await readdir(home)).filter((name) => name.startsWith('vzdump-')),
    [],
  )
})

test('ways in come and go; what was sealed before a rotation still opens', async () => {
  const keyFile = join(home, 'key')
  await writeFile(keyFile, randomBytes(32))
  good('key', 'add', store, ...opening, '--new-key-file', keyFile, '--comment', 'night shift')
  good('key', 'rotate', store, '--key-file', keyFile)
  good('backup', store, image, '--key-file', keyFile)
  const keys = JSON.parse(good('key', 'list', store, '-o', 'json')) as { id: string; kind: string; comment: string }[]
  assert.deepEqual(keys.map(({ kind }) => kind).toSorted(), ['key', 'passphrase', 'recovery'])
  const idOf = (kind: string) => keys.find((key) => key.kind === kind)?.id ?? ''
  const last = hako('key', 'remove', store, idOf('recovery'), ...opening)
  assert.match(last.err, /the last recovery key somebody has confirmed/)
  good('key', 'remove', store, idOf('key'), ...opening)
  assert.equal(hako('show', store, 'host/web', '--key-file', keyFile).code, 4)
  assert.match(good('verify', store, ...opening), /whole/)
})

test('pruning says what it would do, does it, and the space comes back', async () => {
  const before = (JSON.parse(good('list', store, '-o', 'json')) as unknown[]).length
  const plan = JSON.parse(good('prune', store, '--keep-last', '1', '--dry-run', '-o', 'json')) as { mark: string }[]
  assert.equal((JSON.parse(good('list', store, '-o', 'json')) as unknown[]).length, before)
  good('prune', store, '--keep-last', '1')
  const left = (JSON.parse(good('list', store, '-o', 'json')) as unknown[]).length
  assert.equal(left, plan.filter(({ mark }) => mark === 'keep').length)
  assert.ok(left < before)
  const packs = () => readdir(join(store, 'packs'), { recursive: true })
  const kept = await packs()
  const told = JSON.parse(good('gc', store, '--dry-run', ...quick, '-o', 'json')) as Record<string, number>
  assert.deepEqual([await packs(), await readdir(join(store, 'condemned'))], [kept, []])
  const done = JSON.parse(good('gc', store, ...opening, '-o', 'json')) as Record<string, number>
  assert.ok((done.removedChunks ?? 0) > 0)
  assert.deepEqual(
    [told.deadChunks, told.deadPacks, told.thinPacks],
    [done.removedChunks, done.removedPacks, done.rewrittenPacks],
  )
  assert.ok(Math.abs((told.freeable ?? 0) - (done.freed ?? 0)) < 4_096, JSON.stringify([told, done]))
  assert.match(hako('prune', store).err, /nothing says what is kept/)
  good('restore', store, 'host/web', join(home, 'last.raw'), ...opening)
  assert.ok((await readFile(join(home, 'last.raw'))).equals(await readFile(image)))
})

test('backups of the first format come over, and a second time there is nothing to do', async () => {
  await using old = await unpackedDatastore()
  const fresh = join(home, 'fresh')
  const recovery = join(home, 'fresh-recovery')
  await writeFile(recovery, good('init', fresh, ...opening))
  good('key', 'confirm', fresh, '--recovery-key-file', recovery)
  assert.deepEqual(JSON.parse(good('migrate', old.path, fresh, ...opening, '-o', 'json')), { taken: 3, before: 0 })
  assert.deepEqual(JSON.parse(good('migrate', old.path, fresh, ...opening, '-o', 'json')), { taken: 0, before: 3 })
  good('restore', fresh, backups.second, join(home, 'second.raw'), '--disk', 'scsi0', ...opening)
  assert.ok((await readFile(join(home, 'second.raw'))).equals(diskAt(60)))
  assert.match(hako('migrate', fresh, old.path, ...opening).err, /does not exist/)
})

test('a host that only adds is known by the public half of its key, and reads nothing back', async () => {
  const hostKey = join(home, 'host-key')
  const known = good('key', 'make', hostKey).trim()
  assert.equal(hako('key', 'make', hostKey).code, 5)
  good(
    'key',
    'add',
    store,
    ...opening,
    '--write-only',
    '--public-key',
    known,
    '--namespace',
    'web',
    '--comment',
    'web1',
  )
  const mine = [store, '--key-file', hostKey]
  assert.equal(hako('backup', ...mine, image).code, 4)
  const name = good('backup', ...mine, image, '--namespace', 'web', '-o', 'id').trim()
  const denied = hako('restore', store, name, join(home, 'stolen.raw'), '--key-file', hostKey)
  assert.equal(denied.code, 4)
  assert.match(denied.err, /adds backups to the datastore, and opens none/)
  good('restore', store, name, join(home, 'by-owner.raw'), ...opening)
  assert.ok((await readFile(join(home, 'by-owner.raw'))).equals(await readFile(image)))
})

test('packs are verified within a budget, name the backups they hit, and are mended from a copy', async () => {
  const copy = join(home, 'copy')
  good('sync', store, copy)
  const [pack = ''] = (await readdir(join(store, 'packs'), { recursive: true })).filter((name) => name.length > 60)
  const path = join(store, 'packs', pack)
  const bytes = await readFile(path)
  bytes.writeUInt8(bytes.readUInt8(60) ^ 1, 60)
  await writeFile(path, bytes)
  assert.match(good('verify', store, '--budget', '0s'), /left: [1-9]/)
  const found = hako('verify', store, '--packs', ...opening, '-o', 'json')
  assert.equal(found.code, 1)
  const { damaged, hits } = JSON.parse(found.out) as { damaged: string[]; hits: string[] }
  assert.deepEqual(damaged, [pack.slice(-64)])
  assert.ok(hits.length > 0)
  good('repair', store, '--from', copy)
  assert.match(good('verify', store, '--budget-bytes', '10G'), /damaged: \[\]/)
})
