/** Taking in a file of somebody else's: moved when nobody can write to it any more, copied otherwise. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { chmod, mkdir, mkdtemp, open, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { isFault } from '#base/fault.ts'
import { asVolumeId } from '#base/ids.ts'
import { hasNoWriter } from '#host/native.ts'
import { smallStorage } from './small-storage.ts'
import { moveVerified, openForeign } from './transfer.ts'

async function place(t: TestContext) {
  const folder = await mkdtemp(join(tmpdir(), 'hako-transfer-'))
  t.after(() => rm(folder, { recursive: true }))
  const [source, path] = [join(folder, 'claimed', 'upload'), join(folder, 'unfinished')]
  await mkdir(join(folder, 'claimed'), { mode: 0o700 })
  await writeFile(source, 'what was sent', { mode: 0o600 })
  await writeFile(path, '')
  const move = async (value?: string) => {
    await using from = await openForeign(source)
    return await moveVerified(
      from,
      source,
      path,
      value === undefined ? {} : { checksum: { algorithm: 'sha256', value } },
    )
  }
  return { folder, source, path, move }
}

test('a file nobody can write to any more is moved: the same file, under another name', async (t) => {
  const { source, path, move } = await place(t)
  const { ino } = await stat(source)
  assert.equal(await move(createHash('sha256').update('what was sent').digest('hex')), true)
  assert.equal((await stat(path)).ino, ino)
  assert.equal(await readFile(path, 'utf8'), 'what was sent')
})

test('a file somebody still has open for writing is not moved', async (t) => {
  const { source, path, move } = await place(t)
  {
    await using writer = await open(source, 'r+')
    assert.equal(await move(), false)
    assert.equal((await stat(path)).size, 0)
    await writer.write('!')
  }
  await using reader = await open(source, 'r')
  assert.equal(hasNoWriter(reader.fd), true)
  assert.equal(await move(), true, 'another reader keeps nobody')
})

test('a file in a place others can enter is not moved', async (t) => {
  const { folder, move } = await place(t)
  await chmod(join(folder, 'claimed'), 0o711)
  assert.equal(await move(), false)
})

test('a file with another checksum is refused', async (t) => {
  const { move } = await place(t)
  await assert.rejects(move('0'.repeat(64)), (error) => isFault(error, 'damaged'))
})

test('a storage takes a file in by moving it, and from another file system by copying', async () => {
  for (const [spool, isMoved] of [
    ['same', true],
    ['/dev/shm', false],
  ] as const) {
    await using lab = await smallStorage(tmpdir())
    const claimed = await mkdtemp(join(spool === 'same' ? lab.folder : spool, 'claimed-'))
    const source = join(claimed, 'upload')
    await writeFile(source, 'disc', { mode: 0o600 })
    const { ino } = await stat(source)
    await lab.service.stageFile({
      storage: 'local',
      content: 'iso',
      fileName: 'a.iso',
      source,
      mayMove: true,
      mark: 'm',
    })
    const volid = asVolumeId('local:iso/a.iso')
    await lab.service.publishFile(volid, 'm')
    const found = await stat((await lab.service.location(volid)).path)
    assert.deepEqual([found.ino === ino, found.size, found.mode & 0o777], [isMoved, 4, 0o644])
    await rm(claimed, { recursive: true })
  }
})
