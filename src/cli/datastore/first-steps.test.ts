/** `hako datastore` in the hands of somebody who meets it for the first time: slips, other people's files, devices. */
import assert from 'node:assert/strict'
import { mkdir, mkdtemp, open, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { randomBytes } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { datastoreCommand, good, hako } from '../../../test/fixtures/datastore-command.ts'
import { onScreen } from '../../../test/fixtures/on-screen.ts'
import { loopDisk } from '../../../test/fixtures/loop-disk.ts'

const home = await mkdtemp(join(tmpdir(), 'hako-first-steps-'))
after(() => rm(home, { recursive: true }))
const [store, key, recovery] = [join(home, 'store'), join(home, 'key'), join(home, 'recovery')]
const opening = ['--key-file', key]

before(async () => {
  good('key', 'make', key)
  await writeFile(recovery, good('init', store, ...opening))
  good('key', 'confirm', store, '--recovery-key-file', recovery)
})

test('what is typed wrong of the engine is told without a node, and what can be done with it, too', () => {
  assert.match(good(), /datastore backup[^]*hako datastore <verb> --help/)
  assert.match(good('key'), /datastore key rotate/)
  const slip = hako('lst', store)
  assert.equal(slip.code, 2)
  assert.match(slip.err, /no command 'datastore lst'[^]*Did you mean: datastore list/)
  assert.match(hako('key', 'ad', store).err, /Did you mean: datastore key add/)
  assert.equal(hako('import', '--help').code, 2)
})

test('help fits the terminal it is read on', () => {
  const lines = good('backup', '--help').split('\n')
  assert.ok(lines.length > 30 && lines.every((line) => line.length <= 80), lines.join('\n'))
})

test('help shows what only some places need under headings of their own, last, in both languages', () => {
  const headings = (...args: readonly string[]) => good(...args, '--help').match(/^\S.*:$/gm)
  const [options, place, copy, ...rest] = headings('sync') ?? []
  assert.deepEqual(
    [options, place, copy],
    ['Options:', 'With s3:// or https://:', 'Of the copy, with s3:// or https://:'],
  )
  assert.deepEqual(rest, ['Everywhere:', 'Examples:'])
  assert.deepEqual(headings('remove'), ['With s3:// or https://:', 'Everywhere:', 'Examples:'])
  assert.match(good('sync', '--help', '--lang', 'ja'), /s3:\/\/ または https:\/\/ のとき:\n {2}--token-file/)
  assert.match(good('sync', '--help'), /With s3[^]*--endpoint[^]*Of the copy[^]*--copy-endpoint/)
})

test("no copy is made among somebody's files, and no datastore; a folder that is none is told from one", async () => {
  const theirs = join(home, 'theirs')
  await mkdir(theirs)
  await writeFile(join(theirs, 'letter'), 'dear all')
  for (const args of [
    ['init', theirs, ...opening],
    ['sync', store, theirs],
  ]) {
    const refused = hako(...args)
    assert.equal(refused.code, 5, refused.err)
    assert.match(refused.err, /is not empty/)
    assert.deepEqual(await readdir(theirs), ['letter'])
  }
  assert.match(hako('list', theirs).err, /does not exist\nNext: Make one there: hako datastore init/)
  for (const slip of ['s3:/bucket', 'http://backup:8017/site', 'sftp:host:/srv']) {
    assert.match(hako('list', slip).err, /is no place of a datastore[^]*s3:\/\/bucket\/prefix/)
  }
  // A copy that is there is brought up to date, whatever else was laid beside it.
  const copy = join(home, 'copy')
  good('sync', store, copy)
  await writeFile(join(copy, 'README'), 'of the office')
  good('sync', store, copy)
  // A file system of its own has that folder from the start.
  const fresh = join(home, 'fresh')
  await mkdir(join(fresh, 'lost+found'), { recursive: true })
  good('init', fresh, ...opening)
  good('list', fresh)
})

test('a block device is backed up as it is', async () => {
  await using disk = await loopDisk(8 * MiB)
  const content = randomBytes(2 * MiB)
  await using file = await open(disk.path, 'r+')
  await file.write(content, 0, content.length, 3 * MiB)
  await file.sync()
  const name = good('backup', store, disk.path, ...opening, '--id', 'device', '-o', 'id').trim()
  good('restore', store, name, join(home, 'device.raw'), ...opening)
  const restored = await readFile(join(home, 'device.raw'))
  assert.equal(restored.length, 8 * MiB)
  assert.ok(restored.subarray(3 * MiB, 5 * MiB).equals(content))
})

test('somebody at a terminal is asked for a passphrase, which is not shown, and for the recovery key until it is right', async () => {
  const fresh = join(home, 'typed')
  const init = [process.execPath, ...datastoreCommand, 'init', fresh]
  const passphrase = 'correct horse battery'
  const stopped = await onScreen(init, [[/Passphrase of the datastore:/, '\u0003']])
  assert.equal(stopped.code, 130, stopped.screen)
  assert.deepEqual(await readdir(home).then((names) => names.includes('typed')), false)
  const { code, screen } = await onScreen(init, [
    [/Passphrase of the datastore:/, `${passphrase}\r`],
    [/Once more:/, `${passphrase}\r`],
    [/Type the recovery key/, 'AAAA\r'],
    [/it has 4 letters[^]*Type the recovery key/, '\u0003'],
  ])
  assert.equal(code, 130, screen)
  assert.doesNotMatch(screen, /horse/)
  // It was interrupted, not lost: the key on the screen opens it.
  const printed = /(?:[A-Z2-7]{7}-){7}[A-Z2-7]{7}/.exec(screen)?.[0] ?? ''
  const confirming = [process.execPath, ...datastoreCommand, 'key', 'confirm', fresh]
  const confirmed = await onScreen(confirming, [[/Type the recovery key/, `${printed}\r`]])
  assert.equal(confirmed.code, 0, confirmed.screen)
  assert.match(confirmed.screen, /takes backups/)
})
