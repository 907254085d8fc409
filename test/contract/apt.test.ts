/** Packages of a machine whose files are the node's own: what it changes is held against what the real apt makes of it. */
import assert from 'node:assert/strict'
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { machine } from '#host/exec.ts'
import { type WholeNode, wholeNode } from './whole-node.ts'

const host = machine()
const closing = new AsyncDisposableStack()
let node: WholeNode
let root: string
let at: string

const ours = () => `# What we build ourselves.\ndeb [trusted=yes] file:${root}/repo ./\n`
const packageFile = 'Package: hako-sample\nVersion: 1.0\nArchitecture: all\nFilename: ./x.deb\nSize: 1\nSHA256: 00\n'

/** A machine of its own, with a repository in a folder. */
async function makeRoot(): Promise<string> {
  const made = await mkdtemp('/var/tmp/hako-apt-')
  closing.defer(() => rm(made, { recursive: true, force: true }))
  await chmod(made, 0o755)
  for (const place of ['etc/apt/sources.list.d', 'etc/apt/preferences.d', 'var/lib/apt/lists/partial', 'repo']) {
    await mkdir(join(made, place), { recursive: true })
  }
  await mkdir(join(made, 'var/cache/apt/archives/partial'), { recursive: true })
  await writeFile(join(made, 'repo/Packages'), packageFile)
  await writeFile(join(made, 'etc/os-release'), 'ID=debian\nVERSION_CODENAME=bookworm\n')
  return made
}

before(async () => {
  root = await makeRoot()
  await writeFile(join(root, 'etc/apt/sources.list'), ours())
  node = closing.use(await wholeNode({ machineRoot: root }))
  at = `/nodes/${node.settings.node}/apt`
})
after(() => closing.disposeAsync())

interface Sources {
  readonly digest: string
  readonly files: readonly { path: string; repositories: { Enabled: number; Suites: string[] }[] }[]
  readonly 'standard-repos': readonly { handle: string; status?: number }[]
}
const sources = async () => (await node.api('GET', `${at}/repositories`)).data as Sources

/** What apt itself would fetch. */
async function targets(): Promise<string[]> {
  const { stdout } = await host.run(['apt-get', '-o', `Dir=${root}`, 'update', '--print-uris'])
  return [...stdout.matchAll(/^'([^']+)\/InRelease'/gm)].map(([, uri = '']) => uri)
}

test('lists are fetched anew, and one that cannot be had is a failure that is named', async () => {
  const { data } = await node.api('POST', `${at}/update`)
  assert.equal(await node.ended(data), 'OK')
  const known = await host.run(['apt-cache', '-o', `Dir=${root}`, '-o', 'Dir::State::status=/dev/null', 'pkgnames'])
  assert.equal(known.stdout.trim(), 'hako-sample')
  await writeFile(join(root, 'etc/apt/sources.list'), `${ours()}deb [trusted=yes] http://127.0.0.1:9 ./\n`)
  const failing = await node.api('POST', `${at}/update`)
  assert.match(
    await node.ended(failing.data),
    /not every list could be fetched: Failed to fetch http:\/\/127\.0\.0\.1:9\//,
  )
  await writeFile(join(root, 'etc/apt/sources.list'), ours())
})

test('a repository is switched off and on again as apt understands it, and remarks stay', async () => {
  const path = '/etc/apt/sources.list'
  const { digest } = await sources()
  assert.equal((await targets()).length, 1)
  await node.api('POST', `${at}/repositories`, { path, index: 0, enabled: 0, digest })
  assert.deepEqual(await targets(), [])
  assert.match(await readFile(join(root, path), 'utf8'), /^# What we build ourselves\.\n# deb /)
  const stale = node.api('POST', `${at}/repositories`, { path, index: 0, enabled: 1, digest })
  await assert.rejects(stale, /detected modified configuration/)
  await node.api('POST', `${at}/repositories`, { path, index: 0, enabled: 1 })
  assert.equal(await readFile(join(root, path), 'utf8'), ours())
  const change = (params: Record<string, unknown>) => node.api('POST', `${at}/repositories`, { enabled: 0, ...params })
  await assert.rejects(change({ path: '/etc/passwd', index: 0 }), /Parameter verification failed/)
  await assert.rejects(change({ path: '/etc/apt/../passwd', index: 0 }), /Parameter verification failed/)
  await assert.rejects(change({ path, index: 1 }), /Parameter verification failed/)
})

test('a repository of the distribution is added once, in a file of its own', async () => {
  const handle = 'debian-backports'
  const status = async () => (await sources())['standard-repos'].find((one) => one.handle === handle)?.status
  assert.equal(await status(), undefined)
  await node.api('PUT', `${at}/repositories`, { handle, digest: (await sources()).digest })
  assert.equal(await status(), 1)
  assert.ok((await targets()).includes('http://deb.debian.org/debian/dists/bookworm-backports'))
  const path = `/etc/apt/sources.list.d/hakobune-${handle}.sources`
  await node.api('POST', `${at}/repositories`, { path, index: 0, enabled: 0 })
  assert.equal(await status(), 0)
  assert.ok(!(await targets()).some((target) => target.includes('backports')))
  await node.api('PUT', `${at}/repositories`, { handle })
  assert.equal(await status(), 1)
  assert.equal((await sources()).files.length, 2)
  await assert.rejects(node.api('PUT', `${at}/repositories`, { handle: 'enterprise' }), /Parameter verification failed/)
})

test('what changed in an installed package is read from the machine', async () => {
  const text = (await node.api('GET', `${at}/changelog`, { name: 'lvm2' })).data as string
  assert.equal(text, gunzipSync(await readFile('/usr/share/doc/lvm2/changelog.Debian.gz')).toString())
  const unknown = node.api('GET', `${at}/changelog`, { name: 'no-such-package' })
  await assert.rejects(unknown, /No packages found/)
})

test('on a shared machine sources are looked at and not touched', async () => {
  await using shared = await wholeNode()
  const here = `/nodes/${shared.settings.node}/apt`
  const refusal = /belong to the machine, which this node shares with others/
  await assert.rejects(shared.api('PUT', `${here}/repositories`, { handle: 'debian' }), refusal)
  await assert.rejects(shared.api('POST', `${here}/update`), refusal)
})
