/** Files that are whole under their name, or not there: whoever fails, dies or comes second leaves nothing half. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { nodeFlags } from '#base/node-flags.ts'
import { writeNewFile } from './new-file.ts'

const home = await mkdtemp(join(tmpdir(), 'hako-new-file-'))
after(() => rm(home, { recursive: true }))
let folders = 0
async function newFolder(): Promise<string> {
  const folder = join(home, `folder-${(folders += 1)}`)
  await mkdir(folder)
  return folder
}

const isConflict = (how: string) => (fault: unknown) => isFault(fault, 'conflict') && fault.message.endsWith(how)

test('a file has its name once it is whole, and is not there when it fails', async () => {
  const folder = await newFolder()
  const path = join(folder, 'disk')
  const failing = writeNewFile(path, async ({ file }) => {
    await file.writeFile('half')
    throw new Error('it breaks')
  })
  await assert.rejects(failing, /it breaks/)
  assert.deepEqual(await readdir(folder), [])
  const done = await writeNewFile(path, async ({ file, path: part }) => {
    await file.writeFile('whole')
    assert.deepEqual(await readdir(folder), ['disk.hako-part'])
    return part
  })
  assert.equal(done, `${path}.hako-part`)
  assert.equal(await readFile(path, 'utf8'), 'whole')
  assert.deepEqual(await readdir(folder), ['disk'])
})

test('what has the name before, or gets it meanwhile, stays as it is', async () => {
  const folder = await newFolder()
  const path = join(folder, 'disk')
  const appeared = writeNewFile(path, async ({ file }) => {
    await file.writeFile('ours')
    await writeFile(path, 'theirs')
  })
  await assert.rejects(appeared, isConflict('is there already'))
  await assert.rejects(
    writeNewFile(path, () => assert.fail('nothing is written')),
    isConflict('is there already'),
  )
  assert.equal(await readFile(path, 'utf8'), 'theirs')
  assert.deepEqual(await readdir(folder), ['disk'])
})

test('of two who write one file at once the second is refused, and the first is not disturbed', async () => {
  const folder = await newFolder()
  const path = join(folder, 'disk')
  await writeNewFile(path, async ({ file }) => {
    await file.writeFile('first')
    await assert.rejects(
      writeNewFile(path, () => assert.fail('nothing is written')),
      isConflict('is being written by another process'),
    )
  })
  assert.equal(await readFile(path, 'utf8'), 'first')
  const racing = Array.from({ length: 20 }, (_, number) =>
    writeNewFile(join(folder, 'raced'), ({ file }) => file.writeFile(`number ${number}`)),
  )
  const ends = await Promise.allSettled(racing)
  assert.equal(ends.filter(({ status }) => status === 'fulfilled').length, 1)
  for (const end of ends) assert.ok(end.status === 'fulfilled' || isFault(end.reason, 'conflict'))
  assert.match(await readFile(join(folder, 'raced'), 'utf8'), /^number \d+$/)
  assert.deepEqual((await readdir(folder)).toSorted(), ['disk', 'raced'])
})

test('what a process that was killed has left is in nobody’s way', async () => {
  const folder = await newFolder()
  const path = join(folder, 'disk')
  const script = `
    const { writeNewFile } = await import(${JSON.stringify(join(import.meta.dirname, 'new-file.ts'))})
    await writeNewFile(${JSON.stringify(path)}, async ({ file }) => {
      await file.writeFile('half of what was killed')
      console.log('begun')
      setInterval(() => {}, 1_000)
      await new Promise(() => {})
    })`
  const argv = [...nodeFlags, '--input-type=module', '--eval', script]
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  await assert.rejects(
    writeNewFile(path, () => assert.fail('nothing is written')),
    isConflict('is being written by another process'),
  )
  child.kill('SIGKILL')
  await once(child, 'close')
  assert.deepEqual(await readdir(folder), ['disk.hako-part'])
  await writeNewFile(path, ({ file }) => file.writeFile('whole'))
  assert.equal(await readFile(path, 'utf8'), 'whole')
  assert.deepEqual(await readdir(folder), ['disk'])
})

test('a link in the place of a part is not followed', async () => {
  const folder = await newFolder()
  const [path, other] = [join(folder, 'disk'), join(folder, 'other')]
  await writeFile(other, 'of somebody else')
  await symlink(other, `${path}.hako-part`)
  await assert.rejects(writeNewFile(path, ({ file }) => file.writeFile('ours')))
  assert.equal(await readFile(other, 'utf8'), 'of somebody else')
})
