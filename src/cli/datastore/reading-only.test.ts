/** `hako datastore verify` where it may only read: the verdict is that of the content, and one line says what is not kept. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { good, hako } from '../../../test/fixtures/datastore-command.ts'
import { readOnlyMount } from '../../../test/fixtures/read-only-mount.ts'

const home = await mkdtemp(join(tmpdir(), 'hako-reading-only-cli-'))
after(() => rm(home, { recursive: true }))
process.env.XDG_CACHE_HOME = join(home, 'cache')

test('a datastore that can only be read is whole when its content is', async () => {
  const [store, key, image] = [join(home, 'store'), join(home, 'key'), join(home, 'web.raw')]
  await writeFile(key, randomBytes(32))
  await writeFile(image, randomBytes(400_000))
  await writeFile(join(home, 'recovery'), good('init', store, '--key-file', key))
  good('key', 'confirm', store, '--recovery-key-file', join(home, 'recovery'))
  for (const id of ['one', 'two']) good('backup', store, image, '--id', id, '--key-file', key)
  await using mount = await readOnlyMount(store)
  for (const what of [[], ['host/one', 'host/two'], ['--packs']]) {
    const { code, out, err } = hako('verify', mount.path, ...what, '--key-file', key, '-o', 'json')
    assert.equal(code, 0, err)
    if (what[0] !== '--packs') {
      const verdicts = (JSON.parse(out) as { readonly verdict: string }[]).map(({ verdict }) => verdict)
      assert.deepEqual(verdicts, ['whole', 'whole'])
    }
    assert.equal(err.match(/not noted in the datastore: .* read-only/g)?.length, 1, err)
  }
  assert.notEqual(hako('verify', mount.path, 'host/three', '--key-file', key).code, 0)
})
