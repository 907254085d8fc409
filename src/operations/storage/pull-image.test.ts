import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises'
import type { RequestListener } from 'node:http'
import { createServer } from 'node:https'
import { createServer as createTcpServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { promisify } from 'node:util'
import { KiB, MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import type { VolumeId } from '#base/ids.ts'
import { machine } from '#host/exec.ts'
import { findProcesses } from '#host/programs/proc.ts'
import { registryTags } from '#host/web/skopeo.ts'
import type { OciPull } from '#storage/oci-pull.ts'
import { smallStorage } from '#storage/small-storage.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import { type ImageRegistry, imageRegistry } from '../../../test/fixtures/image-registry.ts'
import { pullOciImage, type PullImage, type PullImageDeps, pullRequest, registryAccess } from './pull-image.ts'

const run = promisify(execFile)
const host = machine()
const hello = randomBytes(300 * KiB).toString('hex')
const closing = new AsyncDisposableStack()
let registry: ImageRegistry
let runDir: string

before(async () => {
  registry = closing.use(await imageRegistry())
  for (const tag of ['1.0', '1.1', 'latest']) await registry.push(`team/web:${tag}`, hello)
  runDir = await mkdtemp(join('/run', 'hako-pull-'))
  closing.defer(() => rm(runDir, { recursive: true }))
  await run('chmod', ['711', runDir])
})
after(() => closing.disposeAsync())

const settingsFor = (fetchNetworks: readonly string[]): PullImageDeps['settings'] => ({
  fetchNetworks,
  runDir,
  uidBase: 1_000_000_000,
  caFile: registry.authority.file,
})

/** A storage, on a node whose owner lets it ask its own machine: there the registry is. */
async function world(bounds: OciPull['bounds'] = {}, fetchNetworks: readonly string[] = ['127.0.0.1']) {
  const lab = await smallStorage('/dev/shm')
  const { service } = lab
  const storage: PullImageDeps['storage'] = {
    list: () => service.list(),
    location: (volid) => service.location(volid),
    requireContent: (name, content) => service.requireContent(name, content),
    stageOciPull: (pull) => service.stageOciPull({ ...pull, bounds }),
    publishFile: (volid, mark) => service.publishFile(volid, mark),
    withdrawFile: (volid, mark, identity) => service.withdrawFile(volid, mark, identity),
    discardStaged: (volid, mark) => service.discardStaged(volid, mark),
    erase: (volid, mark) => service.erase(volid, mark),
    sweep: () => service.sweep(),
  }
  const deps: PullImageDeps = { settings: settingsFor(fetchNetworks), storage }
  return { lab, deps, look: lab.look, [Symbol.asyncDispose]: () => lab[Symbol.asyncDispose]() }
}
type World = Awaited<ReturnType<typeof world>>

async function pull(made: World, reference: string, signal?: AbortSignal): Promise<string[]> {
  const lines: string[] = []
  const params = await pullRequest(made.lab.service, { storage: 'local', reference })
  const upid = 'UPID:lab:00000001:00000001:00000001:ociregistrypull:local:root@pam:'
  await perform(pullOciImage, params, made.deps, memoryJournal(), {
    task: { upid, user: 'root@pam', node: 'lab', startTime: 1 },
    log: (line) => void lines.push(line),
    ...(signal ? { signal } : {}),
  })
  return lines
}

/** It fails in these words, and storage, processes and sockets are as they were. */
async function fails(made: World, reference: string, expected: RegExp, signal?: AbortSignal): Promise<void> {
  const before = await made.look()
  await assert.rejects(pull(made, reference, signal), (error) => {
    assert.ok(isFault(error), String(error))
    assert.match(error.message, expected)
    return true
  })
  assert.deepEqual(await made.look(), before)
  assert.deepEqual(await readdir(join(runDir, 'sealed')), [])
  assert.deepEqual(await findProcesses((argv) => argv.some((word) => word === `docker://${reference}`)), [])
}

suite('pulling an image', () => {
  // What the tool makes is not the same twice, and every run of it takes its time: what matters here are the steps.
  everyStepFails(pullOciImage, async () => {
    const made = await world()
    const source = join(made.lab.folder, 'image.tar')
    await writeFile(source, hello)
    const stageOciPull: PullImageDeps['storage']['stageOciPull'] = ({ storage, fileName, mark }) =>
      made.lab.service.stageFile({ storage, fileName, mark, source, content: 'vztmpl' })
    const params: PullImage = { storage: 'local', reference: 'team/web:1.0', fileName: 'web_1.0.tar' }
    return { ...made, deps: { ...made.deps, storage: { ...made.deps.storage, stageOciPull } }, params }
  })
})

suite('an image', () => {
  test('is told by its tags, and pulled as an archive other tools read', async () => {
    const at = `${registry.address}/team/web`
    const access = await registryAccess(settingsFor(['127.0.0.1']))
    assert.deepEqual((await registryTags(host, at, access)).toSorted(), ['1.0', '1.1', 'latest'])
    await using made = await world()
    const log = await pull(made, `${at}:1.0`)
    assert.match(log.join('\n'), /pulling 127\.0\.0\.1:\d+\/team\/web:1\.0 to local:vztmpl\/web_1\.0\.tar/)
    assert.match(log.join('\n'), /Copying blob [^]* finished$/)
    const { path } = await made.lab.service.location('local:vztmpl/web_1.0.tar' as VolumeId)
    const { stdout } = await run('skopeo', ['inspect', `oci-archive:${path}`])
    const { Layers: layers } = JSON.parse(stdout) as { Layers: string[] }
    const blob = `blobs/sha256/${layers[0]?.slice('sha256:'.length)}`
    const folder = await mkdtemp(join(tmpdir(), 'hako-oci-'))
    try {
      await run('tar', ['-C', folder, '-xf', path, blob])
      await run('tar', ['-C', folder, '-xf', join(folder, blob)])
      assert.equal(await readFile(join(folder, 'hello'), 'utf8'), hello)
    } finally {
      await rm(folder, { recursive: true })
    }
    assert.deepEqual(Object.keys(await made.look()), ['template/cache/web_1.0.tar'])
    await fails(made, `${at}:1.0`, /^refusing to override existing file '.*web_1\.0\.tar'$/)
  })

  test('that is not there, too large or not to be had in time leaves nothing', async () => {
    await using made = await world()
    await fails(made, `${registry.address}/team/web:9`, /^the registry does not give '.*web:9': .*manifest unknown/)
    await fails(made, `127.0.0.1:1/team/web:1`, /could not reach '127\.0\.0\.1'/)
    await registry.push('team/large:1', randomBytes(3 * MiB))
    await using small = await world({ sizeBytes: MiB })
    await fails(small, `${registry.address}/team/large:1`, /^the image '.*large:1' is larger than 1\.00? MiB$/)
    await using mute = await silentServer()
    await using hurried = await world({ wholeMs: 800 })
    await fails(hurried, `${mute.address}/team/web:1`, /took longer than 0\.8 s$/)
  })

  test('is fetched by a program that may do nothing else, and ends with whoever asked', async () => {
    await using made = await world()
    await using mute = await silentServer()
    const reference = `${mute.address}/team/web:1`
    const ending = new AbortController()
    const running = fails(made, reference, /interrupted/, ending.signal)
    const isTool = (argv: readonly string[]) => argv[0] === 'skopeo' && argv.includes(`docker://${reference}`)
    const pid = await waitFor(async () => (await findProcesses(isTool))[0], { what: 'the tool', timeoutMs: 10_000 })
    const status = await readFile(`/proc/${pid}/status`, 'utf8')
    const said = (name: string) => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1]
    const uid = settingsFor([]).uidBase - 3
    assert.equal(said('Uid'), [uid, uid, uid, uid].join('\t'))
    assert.deepEqual([said('CapEff'), said('CapBnd'), said('NoNewPrivs')], ['0'.repeat(16), '0'.repeat(16), '1'])
    for (const kind of ['net', 'mnt']) {
      assert.notEqual(await readlink(`/proc/${pid}/ns/${kind}`), await readlink(`/proc/self/ns/${kind}`))
    }
    ending.abort()
    await running
  })

  test('is asked for nowhere the node asks nothing, wherever a registry leads', async () => {
    await using made = await world({}, [])
    await fails(
      made,
      `${registry.address}/team/web:1.0`,
      /^'127\.0\.0\.1' is an address of this machine .* is not asked$/,
    )
    await fails(made, `localhost:${registry.address.split(':')[1]}/team/web:1.0`, /is not asked$/)
    await using open = await world()
    let reached = 0
    const other = createTcpServer((client) => {
      reached += 1
      client.destroy()
    }).listen(0, '127.0.0.1')
    await once(other, 'listening')
    const address = other.address()
    const port = typeof address === 'object' && address ? address.port : 0
    for (const [realm, expected] of [
      ['https://169.254.169.254/token', /^'169\.254\.169\.254' is an address .* is not asked$/],
      // Programs ask these without a proxy; where this one runs nobody is there.
      [`http://127.0.0.1:${port}/token`, /does not give .*(connection refused|unreachable)/],
      [`https://localhost:${port}/token`, /does not give .*(connection refused|unreachable)/],
      ['http://198.51.100.1/token', /does not give .*unreachable/],
    ] as const) {
      await using leading = await tlsServer((_, reply) => {
        reply.writeHead(401, { 'WWW-Authenticate': `Bearer realm="${realm}",service="x"` }).end()
      })
      await fails(open, `${leading.address}/team/web:1`, expected)
    }
    other.close()
    assert.equal(reached, 0)
  })
})

async function tlsServer(handle: RequestListener): Promise<{ address: string } & AsyncDisposable> {
  const { certificate, key } = registry.authority.sign('localhost')
  const server = createServer({ cert: certificate, key }, handle).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  return {
    address: `127.0.0.1:${typeof address === 'object' && address ? address.port : 0}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
    },
  }
}

const silentServer = () => tlsServer(() => {})
