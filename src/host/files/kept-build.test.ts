/** What is built once and kept. */
import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { keptBuild, keyOf } from './kept-build.ts'
import { machine } from '../exec.ts'

async function place(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'hako-kept-'))
  t.after(() => rm(directory, { recursive: true }))
  return directory
}

const host = machine()
const writing = (text: string) => async (_: string, result: string) => writeFile(join(result, 'disk'), text)

test('is made once, by one of those who ask at the same time', async (t) => {
  const home = join(await place(t), 'images')
  let made = 0
  const make = async (inside: string, result: string) => {
    made += 1
    await writing(`number ${made}`)(inside, result)
  }
  const ask = () => keptBuild(host, { home, key: 'k', file: 'disk', make })
  const directories = await Promise.all([ask(), ask(), ask()])
  assert.deepEqual(new Set(directories), new Set([join(home, 'k')]))
  assert.equal(await readFile(join(home, 'k/disk'), 'utf8'), 'number 1')
  await ask()
  assert.equal(made, 1)
})

test('leaves nothing when it fails, and takes away what a killed builder left', async (t) => {
  const home = await place(t)
  await mkdir(join(home, '.build-killed/half'), { recursive: true })
  const failing = async (inside: string, result: string) => {
    await writing('half')(inside, result)
    throw new Error('no more packages')
  }
  await assert.rejects(keptBuild(host, { home, key: 'k', file: 'disk', make: failing }), /no more packages/)
  assert.deepEqual(await readdir(home), [])
  await keptBuild(host, { home, key: 'k', file: 'disk', make: writing('whole') })
  assert.deepEqual(await readdir(home), ['k'])
})

test('a name changes with the texts, the names of files and what is in them', async (t) => {
  const home = await place(t)
  await mkdir(join(home, 'files/inside'), { recursive: true })
  await writeFile(join(home, 'files/inside/a'), '1')
  const key = (text = 'bookworm') => keyOf([text], [join(home, 'files')])
  const first = await key()
  assert.match(first, /^[0-9a-f]{16}$/)
  assert.equal(await key(), first)
  const others = [await key('trixie')]
  await writeFile(join(home, 'files/inside/a'), '2')
  others.push(await key())
  await rm(join(home, 'files/inside/a'))
  await writeFile(join(home, 'files/inside/b'), '2')
  others.push(await key())
  assert.equal(new Set([first, ...others]).size, 4)
})
