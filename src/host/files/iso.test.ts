import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { cryptPassword } from '../system/crypt.ts'
import { machine } from '../exec.ts'
import { writeIso } from './iso.ts'

const host = machine()

test('an image holds the files as given, is equal when they are, and leaves nothing beside it', async (t) => {
  const place = await mkdtemp(join(tmpdir(), 'hako-iso-'))
  t.after(() => rm(place, { recursive: true }))
  const wish = { label: 'config-2', files: { 'a/b/user_data': 'ünï\n', 'vendor-data': '', raw: Buffer.from([0, 255]) } }
  const [one, two] = [join(place, 'one.iso'), join(place, 'two.iso')]
  await writeIso(host, { ...wish, path: one })
  await writeIso(host, { ...wish, path: two })
  assert.deepEqual(await readFile(one), await readFile(two))
  assert.equal((await stat(one)).mode & 0o077, 0o044 & 0o077)
  const { stdout } = await host.run(['xorriso', '-osirrox', 'on', '-indev', one, '-extract', '/', join(place, 'out')])
  assert.equal(stdout, '')
  assert.equal(await readFile(join(place, 'out/a/b/user_data'), 'utf8'), 'ünï\n')
  assert.deepEqual(await readFile(join(place, 'out/raw')), Buffer.from([0, 255]))
  assert.deepEqual((await readdir(place)).toSorted(), ['one.iso', 'out', 'two.iso'])
})

test('a password becomes a hash that proves it, with a salt of its own', async () => {
  const [one, two] = [await cryptPassword(host, 'pä ss$`"'), await cryptPassword(host, 'pä ss$`"')]
  assert.notEqual(one, two)
  const salt = one.split('$')[2] ?? ''
  const { stdout } = await host.run(['openssl', 'passwd', '-6', '-salt', salt, '-stdin'], { input: 'pä ss$`"\n' })
  assert.equal(stdout.trim(), one)
  for (const wrong of ['', 'a\nb', 'a\0b', 'ä'.repeat(128)]) {
    await assert.rejects(cryptPassword(host, wrong, 'cipassword'), { kind: 'invalid' })
  }
})
