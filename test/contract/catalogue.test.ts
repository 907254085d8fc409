/** A site offers templates: it makes the index with our command and signs it; a node fetches one, and only as signed. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { appendFile, copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { zstdCompressSync } from 'node:zlib'
import { unpackTemplate } from '#guests/lxc/unpack.ts'
import { machine } from '#host/exec.ts'
import { tarOf } from '../fixtures/tar-writer.ts'
import { type WholeNode, wholeNode } from './whole-node.ts'

const host = machine()
const hako = join(import.meta.dirname, '../../hako')
const template = 'tiny-1-plain_1.0-1_amd64.tar.zst'

suite('a catalogue of templates', () => {
  const closing = new AsyncDisposableStack()
  let [site, keys] = ['', '']
  let node: WholeNode
  const gpg = (...args: string[]) => host.run(['gpg', '--homedir', keys, '--batch', '--quiet', ...args])

  before(async () => {
    const home = await mkdtemp(join(tmpdir(), 'hako-site-'))
    closing.defer(() => rm(home, { recursive: true, force: true }))
    ;[site, keys] = [join(home, 'site'), join(home, 'keys')]
    await mkdir(site)
    await mkdir(keys, { mode: 0o700 })
    closing.defer(() => host.run(['gpgconf', '--homedir', keys, '--kill', 'all']).then(() => {}))
    await gpg('--passphrase', '', '--quick-generate-key', 'templates@example.org', 'ed25519', 'sign')
    await gpg('--output', join(home, 'keyring.gpg'), '--export')
    const members = [
      { name: './', type: '5', mode: 0o755 },
      { name: './note', content: 'out of a catalogue' },
    ]
    await writeFile(join(site, template), zstdCompressSync(tarOf(members)))
    await writeFile(join(site, `${template}.txt`), 'A tiny system.\n\nIt does nothing.\n')
    const { stdout } = await host.run([hako, 'storage', 'template-index', site])
    await writeFile(join(site, 'index.dat'), stdout)
    await gpg('--armor', '--detach-sign', join(site, 'index.dat'))
    const server = createServer((request, response) => {
      readFile(join(site, basename(request.url ?? ''))).then(
        (body) => response.end(body),
        () => response.writeHead(404).end(),
      )
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    closing.defer(() => void server.close())
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/index.dat`
    const templateIndex = { url, keyring: join(home, 'keyring.gpg') }
    node = closing.use(await wholeNode({ fetchNetworks: ['127.0.0.1'], templateIndex }))
  })
  after(() => closing.disposeAsync())
  const api = async (method: 'GET' | 'POST', path: string, params?: Record<string, unknown>) =>
    (await node.api(method, `/nodes/${node.settings.node}${path}`, params)).data
  const fetched = async () => node.ended(await api('POST', '/aplinfo', { storage: 'local', template }))

  test('is listed with what the site says of each', async () => {
    const [only, ...others] = (await api('GET', '/aplinfo')) as Record<string, string>[]
    assert.deepEqual(others, [])
    const { package: name, version, os, architecture, headline, description } = only ?? {}
    assert.deepEqual([name, version, os, architecture], ['tiny-1-plain', '1.0-1', 'tiny-1', 'amd64'])
    assert.deepEqual([headline, description], ['A tiny system.', 'A tiny system.\n\nIt does nothing.'])
  })

  test('gives a template, which becomes the root directory of a container', async () => {
    assert.equal(await fetched(), 'OK')
    const [volume] = (await api('GET', '/storage/local/content', { content: 'vztmpl' })) as { volid: string }[]
    assert.equal(volume?.volid, `local:vztmpl/${template}`)
    const archive = join(node.settings.stateDir, 'storage/local/template/cache', template)
    const rootfs = join(site, '../rootfs')
    await mkdir(rootfs)
    await unpackTemplate({ archive, rootfs })
    assert.equal(await readFile(join(rootfs, 'note'), 'utf8'), 'out of a catalogue')
    await rm(archive)
  })

  test('gives none that was changed after it was signed', async () => {
    await copyFile(join(site, template), join(site, 'kept'))
    await appendFile(join(site, template), 'more')
    assert.match(await fetched(), /^checksum mismatch/)
    assert.deepEqual(await api('GET', '/storage/local/content', { content: 'vztmpl' }), [])
    await copyFile(join(site, 'kept'), join(site, template))
    assert.equal(await fetched(), 'OK')
  })
})
