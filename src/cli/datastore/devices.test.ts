/** Sources and targets of `hako datastore` that are no quiet files. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { machine } from '#host/exec.ts'
import { codeOf } from '#host/files.ts'
import { good, hako } from '../../../test/fixtures/datastore-command.ts'
import { failingDisk } from '../../../test/fixtures/failing-disk.ts'
import { loopDisk } from '../../../test/fixtures/loop-disk.ts'

const home = await mkdtemp(join(tmpdir(), 'hako-devices-'))
after(() => rm(home, { recursive: true }))
const [store, key, recovery] = ['store', 'key', 'recovery'].map((name) => join(home, name)) as [string, string, string]
const opening = ['--key-file', key]
/** It begins and ends with data, and ends within a block. */
const content = Buffer.concat([randomBytes(2 * MiB), Buffer.alloc(6 * MiB), randomBytes(MiB + 512)])
let backup = ''

before(async () => {
  await writeFile(key, randomBytes(32))
  await writeFile(recovery, good('init', store, ...opening))
  good('key', 'confirm', store, '--recovery-key-file', recovery)
  await using disk = await loopDisk(content.length)
  await writeFile(disk.path, content, { flag: 'r+' })
  backup = good('backup', store, disk.path, '--id', 'device', ...opening, '-o', 'id').trim()
})

/** A device on which something is everywhere. */
async function usedDisk(sizeBytes: number) {
  const disk = await loopDisk(sizeBytes)
  await writeFile(disk.path, Buffer.alloc(sizeBytes, 'old'), { flag: 'r+' })
  return disk
}

const overwrite = (device: string) => hako('restore', store, backup, device, '--confirm', device, ...opening)

async function beginningOf(device: string, bytes: number): Promise<Buffer> {
  await using file = await open(device)
  return (await file.read(Buffer.alloc(bytes), 0, bytes, 0)).buffer
}

test('a block device is backed up to its last sector', async () => {
  const target = join(home, 'restored.raw')
  good('restore', store, backup, target, ...opening)
  assert.ok((await readFile(target)).equals(content))
  const gone = hako('backup', store, join(home, 'never.raw'), ...opening)
  assert.match(gone.err, /never\.raw' does not exist/)
})

test('a disk is restored over a device whose name is typed, and nothing of what was there shows through', async () => {
  await using disk = await usedDisk(12 * MiB)
  const refused = hako('restore', store, backup, disk.path, ...opening)
  assert.equal(refused.code, 2)
  assert.match(refused.err, /^hako: This destroys \/dev\/loop\d+ \(12\.0 MiB\)\.\nNext: Repeat it with --confirm \/dev/)
  assert.ok((await readFile(disk.path)).equals(Buffer.alloc(12 * MiB, 'old')))
  const { code, err } = overwrite(disk.path)
  assert.equal(code, 0, err)
  const expected = Buffer.alloc(12 * MiB)
  content.copy(expected)
  assert.ok((await readFile(disk.path)).equals(expected))
})

test('a device that is too small, mounted or open elsewhere is left as it was, and it is said why', async () => {
  await using small = await usedDisk(9 * MiB)
  const tooSmall = overwrite(small.path)
  assert.equal(tooSmall.code, 2)
  assert.match(tooSmall.err, /has 9437184 bytes, and disk drive0 needs 9437696/)
  assert.ok((await readFile(small.path)).equals(Buffer.alloc(9 * MiB, 'old')))

  await using disk = await loopDisk(16 * MiB)
  const host = machine()
  await host.run(['mkfs.ext4', '-q', disk.path])
  const folder = join(home, 'mounted')
  await mkdir(folder)
  await host.run(['mount', disk.path, folder])
  try {
    const mounted = overwrite(disk.path)
    assert.equal(mounted.code, 5)
    assert.ok(mounted.err.includes(`in use: '${disk.path}' is mounted on '${folder}'`), mounted.err)
  } finally {
    await host.run(['umount', folder])
  }
  await using opened = await open(disk.path)
  const reader = spawn('sleep', ['100'], { stdio: [opened.fd, 'ignore', 'ignore'] })
  try {
    const held = overwrite(disk.path)
    assert.equal(held.code, 5)
    assert.ok(held.err.includes(`'${disk.path}' is open in process`), held.err)
  } finally {
    reader.kill()
  }
  await host.run(['e2fsck', '-fn', disk.path])
})

test('a device that fails while it is written is told of, and taken for neither what it was nor for the backup', async () => {
  await using disk = await failingDisk(12 * MiB, true)
  await writeFile(disk.device, Buffer.alloc(12 * MiB, 'old'), { flag: 'r+' })
  await machine().run(['blockdev', '--flushbufs', disk.device])
  await disk.fail({ how: 'write', sectors: [(8 * MiB) / 512 + 64] })
  const { code, err } = overwrite(disk.device)
  assert.equal(code, 1)
  assert.match(
    err,
    /is neither what it was nor the disk of the backup[^]*the disk of '\/dev\/loop\d+' reports an error/,
  )
  assert.ok((await beginningOf(disk.device, MiB)).equals(Buffer.alloc(MiB)))
  await disk.heal()
  const again = overwrite(disk.device)
  assert.equal(again.code, 0, again.err)
  assert.ok((await beginningOf(disk.device, content.length)).equals(content))
})

test('a file that is too large for the file system it comes back to is named', async () => {
  const [folder, mounted] = [join(home, 'large'), join(home, 'small')]
  for (const path of [folder, mounted]) await mkdir(path)
  await using file = await open(join(folder, 'huge'), 'w')
  await file.truncate(20 * 1024 * MiB)
  const point = good('backup', store, folder, '--id', 'large', ...opening, '-o', 'id').trim()
  await using disk = await loopDisk(16 * MiB)
  // Without extents and with small blocks a file of ext4 ends at 16 GiB.
  await machine().run(['mkfs.ext4', '-q', '-b', '1024', '-O', '^extent,^64bit', disk.path])
  await machine().run(['mount', disk.path, mounted])
  try {
    const target = join(mounted, 'back')
    const { code, err } = hako('restore', store, point, target, ...opening)
    assert.deepEqual(
      [code !== 0, err],
      [true, `hako: the file system of '${join(target, 'huge')}' holds no file as large as that\n`],
    )
    await assert.rejects(readFile(target), (error) => codeOf(error) === 'ENOENT')
  } finally {
    await machine().run(['umount', mounted])
  }
})
