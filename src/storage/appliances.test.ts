import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { silentLog } from '#base/log.ts'
import { machine } from '#host/exec.ts'
import { applianceNamed, appliances, parseIndex } from './appliances.ts'

const host = machine()
const sum = 'ab'.repeat(64)
const index = `Package: debian-13-standard
Version: 13.1-2
Type: lxc
OS: debian-13
Section: system
Architecture: amd64
Location: system/debian-13-standard_13.1-2_amd64.tar.zst
sha512sum: ${sum}
Description: Debian 13 (standard)
 A small system.
 .
 Nothing more.

Package: nameless
Location: system/../../etc/passwd
sha512sum: ${sum}

Package: unchecked
Location: http://elsewhere.example/unchecked.tar.gz
md5sum: d41d8cd98f00b204e9800998ecf8427e

Package: alpine
Section: mail
Location: http://elsewhere.example/alpine_3_amd64.tar.xz
sha512sum: ${sum}
`

test('an index is read stanza by stanza; what cannot be checked or named is passed over', () => {
  const found = parseIndex(index, 'http://one.example/images/index.dat')
  assert.deepEqual(
    found.map(({ template, url }) => [template, url]),
    [
      ['alpine_3_amd64.tar.xz', 'http://elsewhere.example/alpine_3_amd64.tar.xz'],
      [
        'debian-13-standard_13.1-2_amd64.tar.zst',
        'http://one.example/images/system/debian-13-standard_13.1-2_amd64.tar.zst',
      ],
    ],
  )
  const [, debian] = found
  assert.equal(debian?.facts.description, 'Debian 13 (standard)\nA small system.\n\nNothing more.')
  assert.deepEqual(parseIndex('no index at all', 'http://one.example/'), [])
})

suite('the index of templates', () => {
  const closing = new AsyncDisposableStack()
  const served = new Map<string, Buffer>()
  let [folder, base, asked, number] = ['', '', 0, 0]
  const gpg = (...args: string[]) => host.run(['gpg', '--homedir', join(folder, 'gpg'), '--batch', '--quiet', ...args])

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'hako-index-'))
    closing.defer(() => rm(folder, { recursive: true, force: true }))
    await mkdir(join(folder, 'gpg'), { mode: 0o700 })
    closing.defer(() => host.run(['gpgconf', '--homedir', join(folder, 'gpg'), '--kill', 'all']).then(() => {}))
    await gpg('--passphrase', '', '--quick-generate-key', 'index@example.org', 'ed25519', 'sign')
    await gpg('--output', join(folder, 'keys.gpg'), '--export')
    const server = createServer((request, response) => {
      asked += 1
      const body = served.get(request.url ?? '')
      if (body) response.end(body)
      else response.writeHead(404).end()
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    closing.defer(() => void server.close())
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  })
  after(() => closing.disposeAsync())

  /** A node of its own, with a clock of its own. */
  async function node(url: string) {
    const stateDir = await mkdtemp(join(folder, 'state-'))
    const clock = { nowMs: Date.now(), now: () => clock.nowMs }
    const templateIndex = { url, keyring: join(folder, 'keys.gpg') }
    const settings = { stateDir, templateIndex, fetchNetworks: ['127.0.0.1'] }
    return { settings, host, clock, log: silentLog }
  }

  /** Serves a text with its signature under a path of its own. */
  async function serve(text: string, { compressed = false, signs = text } = {}): Promise<string> {
    number += 1
    const [path, file] = [`/${number}.dat`, join(folder, `${number}.dat`)]
    await writeFile(file, signs)
    await gpg('--armor', '--detach-sign', '--output', `${file}.asc`, file)
    served.set(`${path}.asc`, await readFile(`${file}.asc`))
    served.set(compressed ? `${path}.gz` : path, compressed ? gzipSync(text) : Buffer.from(text))
    return `${base}${path}${compressed ? '.gz' : ''}`
  }

  test('is empty where none is configured, and nobody is asked', async () => {
    const { settings, ...others } = await node(base)
    const { templateIndex: _, ...without } = settings
    assert.deepEqual(await appliances({ settings: without, ...others }), [])
    assert.equal(asked, 0)
  })

  test('is fetched, its signature is checked, and it is kept for a day', async () => {
    for (const compressed of [false, true]) {
      const needs = await node(await serve(index, { compressed }))
      assert.equal((await appliances(needs)).length, 2)
      const before = asked
      assert.equal((await applianceNamed(needs, 'alpine_3_amd64.tar.xz')).sha512, sum)
      assert.equal(asked, before)
      await assert.rejects(applianceNamed(needs, 'gone.tar'), { fields: { template: "no such template 'gone.tar'" } })
      needs.clock.nowMs += 25 * 60 * 60_000
      await appliances(needs)
      assert.equal(asked, before + 2)
      assert.deepEqual(await readdir(needs.settings.stateDir), ['template-index'])
    }
  })

  test('is refused when somebody else signed it, or it was changed, and is not kept', async () => {
    const changed = await node(await serve(index, { signs: `${index}\n` }))
    await assert.rejects(appliances(changed), /the signature does not hold: gpgv failed .*BAD signature/)
    const stranger = await node(await serve(index))
    await writeFile(join(folder, 'none.gpg'), '')
    const templateIndex = { ...stranger.settings.templateIndex, keyring: join(folder, 'none.gpg') }
    const trusting = { ...stranger, settings: { ...stranger.settings, templateIndex } }
    await assert.rejects(appliances(trusting), /the signature does not hold/)
    for (const { settings } of [changed, stranger]) assert.deepEqual(await readdir(settings.stateDir), [])
  })

  test('that is away for a while is the one that was kept; one that never was is asked for once a minute', async () => {
    const url = await serve(index)
    const needs = await node(url)
    await appliances(needs)
    served.clear()
    needs.clock.nowMs += 25 * 60 * 60_000
    assert.equal((await appliances(needs)).length, 2)
    const other = await node(`${base}/gone.dat`)
    await assert.rejects(appliances(other), /the server answers 404/)
    const before = asked
    await assert.rejects(appliances(other), /the server answers 404/)
    assert.equal(asked, before)
    other.clock.nowMs += 61_000
    await assert.rejects(appliances(other), /the server answers 404/)
    assert.equal(asked, before + 1)
  })
})
