/** `hako datastore` with a datastore in a bucket: every command does there what it does in a directory. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { objectStore } from '../../../test/fixtures/object-store.ts'
import { good, hako } from '../../../test/fixtures/datastore-command.ts'

const home = await mkdtemp(join(tmpdir(), 'hako-s3-cli-'))
after(() => rm(home, { recursive: true }))
// What is kept for the next command.
process.env.XDG_CACHE_HOME = join(home, 'cache')
const server = await objectStore()
after(() => server[Symbol.asyncDispose]())
const [key, image, recovery] = [join(home, 'key'), join(home, 'web.raw'), join(home, 'recovery')]
const tls = ['--endpoint', server.tlsEndpoint, '--ca-file', server.authority.file]
const reach = [...tls, '--credentials-file', server.credentialsFile]
const opening = [...reach, '--key-file', key]
const copying = reach.map((one) => (one.startsWith('--') ? `--copy-${one.slice(2)}` : one))

test('a bucket is a place as a directory is, over TLS, with credentials from a file', async () => {
  const store = `s3://${await server.bucket({ lock: true })}/site`
  await writeFile(key, randomBytes(32))
  const content = randomBytes(3 * MiB)
  await writeFile(image, content)
  await writeFile(recovery, good('init', store, ...opening, '--retain-days', '30'))
  good('key', 'confirm', store, ...reach, '--recovery-key-file', recovery)
  const name = good('backup', store, image, ...opening, '-o', 'id').trim()
  assert.match(good('list', store, ...reach), new RegExp(name))
  assert.match(good('verify', store, ...opening), /whole/)
  assert.equal((await readdir(join(home, 'cache/hakobune/segments'))).length, 1)
  good('verify', store, 'host/web', ...opening, '--cache-dir', join(home, 'elsewhere'))
  assert.equal((await readdir(join(home, 'elsewhere/segments'))).length, 1)
  good('restore', store, 'host/web', join(home, 'restored.raw'), ...opening)
  assert.ok((await readFile(join(home, 'restored.raw'))).equals(content))
  const [row] = JSON.parse(good('prune', store, ...reach, '--keep-daily', '1', '--keep-last', '0', '-o', 'json')) as { mark: string }[] // prettier-ignore
  assert.equal(row?.mark, 'keep')
  assert.match(hako('remove', store, name, ...reach).err, /is locked until \d{4}-/)
  assert.match(good('gc', store, ...opening), /liveChunks/)
  assert.match(good('canary', store, ...reach), /delete.*true/)
  const copy = join(home, 'copy')
  good('sync', store, copy, ...reach)
  good('restore', copy, 'host/web', join(home, 'from-copy.raw'), '--key-file', key)
  assert.ok((await readFile(join(home, 'from-copy.raw'))).equals(content))
  const second = `s3://${await server.bucket()}`
  good('sync', copy, second, ...copying)
  assert.match(good('list', second, ...reach), new RegExp(name))
  const { code, err } = hako('canary', second, ...reach)
  assert.equal(code, 7, err)
})

test('what is wrong on the way to a bucket is said, and no secret with it', async () => {
  const store = `s3://${await server.bucket()}/site`
  const wrong = join(home, 'wrong')
  const secret = 'not the right one'
  await writeFile(wrong, `aws_access_key_id = ${server.accessKey}\naws_secret_access_key = ${secret}\n`)
  const open = hako('list', store, ...tls, '--credentials-file', wrong)
  assert.match(open.err, /holds a secret, and others may read it[^]*chmod 600/)
  await chmod(wrong, 0o600)
  const denied = hako('list', store, ...tls, '--credentials-file', wrong)
  assert.equal(denied.code, 4)
  assert.match(denied.err, /refuses access[^]*SignatureDoesNotMatch/)
  assert.ok(!denied.err.includes(secret))
  const untrusted = hako('list', store, '--endpoint', server.tlsEndpoint, '--credentials-file', server.credentialsFile)
  assert.match(untrusted.err, /certificate of '\S+' is not trusted[^]*--ca-file/)
  assert.equal(hako('list', 's3://no-such-bucket', ...reach).code, 3)
  assert.equal(hako('list', `${store}/../x`, ...reach).code, 2)
  assert.match(hako('list', store, ...reach).err, /datastore 's3:\S+' does not exist/)
  assert.match(hako('init', store, ...opening, '--retain-days', '30').err, /has no Object Lock/)
})
