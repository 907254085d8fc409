import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { KiB, MiB } from '#base/bytes.ts'
import { systemClock } from '#base/clock.ts'
import { type Fault, isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { ensureCertificate } from '#cluster/self-signed.ts'
import type { Download } from '#storage/download.ts'
import { smallStorage } from '#storage/small-storage.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import { type SmallWeb, smallWeb } from '../../../test/fixtures/small-web.ts'
import { downloadFile, type DownloadFile, type DownloadFileDeps, downloadRequest } from './download.ts'

const bytes = randomBytes(300 * KiB)
const sha256 = createHash('sha256').update(bytes).digest('hex')
const host = machine()
const closing = new AsyncDisposableStack()
let web: SmallWeb
let secure: SmallWeb

before(async () => {
  web = closing.use(await smallWeb(bytes))
  const folder = await mkdtemp(join(tmpdir(), 'hako-tls-'))
  closing.defer(() => rm(folder, { recursive: true }))
  const { key, certificate } = await ensureCertificate({ directory: folder, node: 'web' })
  secure = closing.use(await smallWeb(bytes, { key, cert: certificate }))
})
after(() => closing.disposeAsync())

/** A storage, on a node whose owner lets it ask its own machine: there the servers are. */
async function world(bounds: Download['bounds'] = {}, fetchNetworks: readonly string[] = ['127.0.0.1']) {
  const lab = await smallStorage('/dev/shm')
  const { service } = lab
  const storage: DownloadFileDeps['storage'] = {
    list: () => service.list(),
    describe: (volid) => service.describe(volid),
    location: (volid) => service.location(volid),
    requireContent: (name, content) => service.requireContent(name, content),
    stageDownload: (download) => service.stageDownload({ ...download, bounds }),
    publishFile: (volid, mark) => service.publishFile(volid, mark),
    withdrawFile: (volid, mark, identity) => service.withdrawFile(volid, mark, identity),
    discardStaged: (volid, mark) => service.discardStaged(volid, mark),
    erase: (volid, mark) => service.erase(volid, mark),
    sweep: () => service.sweep(),
  }
  const deps: DownloadFileDeps = { settings: { fetchNetworks }, clock: systemClock, storage }
  return { lab, deps, look: lab.look, [Symbol.asyncDispose]: () => lab[Symbol.asyncDispose]() }
}
type World = Awaited<ReturnType<typeof world>>

type Wish = Partial<Omit<DownloadFile, 'from'>> & { readonly signal?: AbortSignal }

/** Runs the operation to its end, and returns its log. */
async function download(made: World, url: string, { signal, ...wish }: Wish = {}): Promise<string[]> {
  const lines: string[] = []
  const params: DownloadFile = { storage: 'local', content: 'iso', fileName: 'a.iso', from: url, ...wish }
  const upid = 'UPID:lab:00000001:00000001:00000001:download:local:root@pam:'
  await perform(downloadFile, params, made.deps, memoryJournal(), {
    task: { upid, user: 'root@pam', node: 'lab', startTime: 1 },
    log: (line) => void lines.push(line),
    ...(signal ? { signal } : {}),
  })
  return lines
}

/** It fails in these words, and the storage is as it was. */
async function fails(made: World, url: string, expected: RegExp, wish: Wish = {}): Promise<Fault> {
  const before = await made.look()
  const fault = await download(made, url, wish).then(
    () => assert.fail(`${url} was downloaded`),
    (error: unknown) => error,
  )
  assert.ok(isFault(fault), String(fault))
  assert.match(fault.message, expected)
  assert.deepEqual(await made.look(), before)
  return fault
}

suite('downloading', () => {
  everyStepFails(downloadFile, async () => ({
    ...(await world()),
    params: { storage: 'local', content: 'iso' as const, fileName: 'a.iso', from: web.url('/file') },
  }))
})

suite('a download', () => {
  const isoPath = (made: World) => join(made.lab.folder, 'storage/template/iso/a.iso')

  test('is checked, appears under its name, and says in its log where it came from', async () => {
    await using made = await world()
    const log = await download(made, web.url('/moved'), { checksum: { algorithm: 'sha256', value: sha256 } })
    assert.deepEqual(await readFile(isoPath(made)), bytes)
    const text = log.join('\n')
    assert.match(text, /downloading http:\/\/127\.0\.0\.1:\d+\/moved to local:iso\/a\.iso/)
    assert.match(text, /receiving 300 KiB from http:\/\/127\.0\.0\.1:\d+\/file/)
    assert.match(text, /OK, checksum verified \(sha256\)/)
  })

  test('is taken apart on the way; the checksum is that of what was sent', async () => {
    for (const [compression, path] of [
      ['gz', '/file.gz'],
      ['zst', '/file.zst'],
    ] as const) {
      await using made = await world()
      await download(made, web.url(path), { compression })
      assert.deepEqual(await readFile(isoPath(made)), bytes)
    }
    await using made = await world()
    const checksum = { algorithm: 'sha256', value: sha256 } as const
    await fails(made, web.url('/file.gz'), /^checksum mismatch: got '[0-9a-f]{64}' != expect/, {
      compression: 'gz',
      checksum,
    })
    await fails(made, web.url('/not.gz'), /cannot be decompressed/, { compression: 'gz' })
  })

  test('never replaces a file; with a checksum a file that is right already is enough', async () => {
    await using made = await world()
    await download(made, web.url('/unknown-size'))
    await fails(made, web.url('/file'), /^refusing to override existing file '.*\/a\.iso'$/)
    const asked = web.asked.length
    const log = await download(made, web.url('/file'), { checksum: { algorithm: 'sha256', value: sha256 } })
    assert.match(log.join('\n'), /OK, got correct file already, no need to download/)
    assert.equal(web.asked.length, asked)
    const other = { algorithm: 'md5', value: 'd41d8cd98f00b204e9800998ecf8427e' } as const
    await fails(made, web.url('/file'), /refusing to override/, { checksum: other })
    assert.deepEqual(await readFile(isoPath(made)), bytes)
  })

  test('that is cut off, wrong, missing or led in circles leaves nothing', async () => {
    await using made = await world()
    await fails(made, web.url('/cut'), /^the download was cut off after \d+ of 307200 bytes$/)
    await fails(made, web.url('/cut-chunks'), /^the download was cut off after \d+ bytes$/)
    const checksum = { algorithm: 'sha256', value: createHash('sha256').digest('hex') } as const
    await fails(made, web.url('/file'), /^checksum mismatch/, { checksum })
    await fails(made, web.url('/gone'), /the server answers 404/)
    await fails(made, web.url('/loop'), /more than 5 times/)
    await fails(made, web.url('/to?where=file:///etc/passwd'), /leads to 'file:'/)
    await fails(made, 'http://127.0.0.1:1/x', /could not reach/)
    await fails(made, web.url('/file'), /is not a qcow2 image/, { content: 'import', fileName: 'a.qcow2' })
  })

  test('has limits: of size, of silence, of time', async () => {
    await using made = await world({ sizeBytes: 64 * MiB, wholeMs: 60_000 })
    await fails(made, web.url('/huge'), /^the file is larger than 64\.0 MiB$/)
    await fails(made, web.url('/endless'), /^the file is larger than 64\.0 MiB$/)
    await fails(made, web.url('/bomb.gz'), /^the file is larger than 64\.0 MiB$/, { compression: 'gz' })
    await using impatient = await world({ idleMs: 100, wholeMs: 60_000 })
    await fails(impatient, web.url('/silent'), /^the server was silent for 0\.1 s$/)
    await using hurried = await world({ wholeMs: 200 })
    await fails(hurried, web.url('/mute'), /^the download took longer than 0\.2 s$/)
    await fails(hurried, web.url('/silent'), /^the download took longer than 0\.2 s$/)
  })

  test('that is interrupted leaves nothing', async () => {
    await using made = await world()
    for (const path of ['/mute', '/endless']) {
      await fails(made, web.url(path), /interrupted/, { signal: AbortSignal.timeout(150) })
    }
  })

  test('leaves room on its storage, announced or not', async () => {
    await using made = await world({ everyBytes: MiB })
    const small = join(made.lab.folder, 'small')
    await mkdir(small)
    await host.run(['mount', '-t', 'tmpfs', '-o', 'size=20m', 'tmpfs', small])
    try {
      await made.lab.service.create({ storage: 'small', type: 'dir', path: small, content: 'iso' })
      const place = { storage: 'small' }
      await fails(made, web.url('/endless'), /^not enough space on storage 'small' for the rest of file/, place)
      await fails(made, web.url('/bomb.gz'), /^not enough space/, { ...place, compression: 'gz' })
      await host.run(['truncate', '-s', '0', join(small, 'mark')])
      await host.run(['dd', 'if=/dev/zero', `of=${join(small, 'mark')}`, 'bs=1M', 'count=19', 'status=none'])
      const fault = await fails(made, web.url('/file'), /^not enough space on storage 'small' for file 'a\.iso'/, place)
      assert.equal(fault.kind, 'exhausted')
    } finally {
      await host.run(['umount', small])
    }
  })

  test('asks no address of this machine, wherever it begins', async () => {
    await using made = await world({}, [])
    const asked = web.asked.length
    await fails(made, web.url('/file'), /^'127\.0\.0\.1' is an address of this machine .* is not asked$/)
    const port = new URL(web.url('/')).port
    await fails(made, `http://localhost:${port}/file`, /is not asked$/)
    await fails(made, `http://[::ffff:127.0.0.1]:${port}/file`, /is not asked$/)
    assert.equal(web.asked.length, asked)
    await using open = await world()
    for (const where of ['http://169.254.169.254/latest/meta-data/', 'http://[::1]:8006/', 'http://127.0.0.2/']) {
      await fails(open, web.url(`/to?where=${encodeURIComponent(where)}`), /is not asked$/)
    }
  })

  test('by https trusts whom the machine trusts, and does not go on without', async () => {
    await using made = await world()
    await fails(made, secure.url('/file'), /could not reach .*self-signed certificate/)
    const verifyCertificates = false
    const leading = secure.url(`/to?where=${encodeURIComponent(web.url('/file'))}`)
    await fails(made, leading, /leads from https to 'http:/, { verifyCertificates })
    const checksum = { algorithm: 'sha256', value: sha256 } as const
    await download(made, leading, { verifyCertificates, checksum, fileName: 'b.iso' })
    await download(made, secure.url('/file'), { verifyCertificates })
    assert.deepEqual(await readFile(isoPath(made)), bytes)
  })

  test('keeps what may be secret in its address to itself', async () => {
    await using made = await world()
    const params = { storage: 'local', content: 'iso', filename: 'a.iso' } as const
    const url = 'https://user:hidden@example.org/a.iso?signature=hidden'
    const planned = await downloadRequest(made.lab.service, { ...params, url })
    assert.deepEqual([planned.from, planned.url], ['https://example.org/a.iso', url])
    assert.deepEqual(downloadFile.facts.secrets, ['url'])
    const plain = await downloadRequest(made.lab.service, { ...params, url: 'https://example.org/a.iso' })
    assert.deepEqual([plain.from, plain.url], ['https://example.org/a.iso', undefined])
  })
})
