/** The front as a process of its own: what it may do, what others see of it, when it ends. */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, readdir, readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { peerCredentials } from '#host/native.ts'
import { curl } from '../../test/contract/curl.ts'
import { type Demo, demoNode, ticketOf } from '../../test/contract/demo.ts'
import { type FrontProcess, startFrontProcess } from './front-process.ts'
import { ensureCertificate } from '#cluster/self-signed.ts'
import type { FrontConfig } from './wire.ts'

const uid = 999_999_990

interface Started extends AsyncDisposable {
  readonly node: Demo
  readonly front: FrontProcess
  readonly config: FrontConfig
}

/** A daemon that lets in the front's uid alone, and a front with that uid. */
async function startNode(changes: Partial<FrontConfig> = {}): Promise<Started> {
  await using undo = new AsyncDisposableStack()
  const node = undo.use(await demoNode({ uid, changes: { peerCredentials } }))
  await chmod(node.directory, 0o711)
  execFileSync('chown', [`${uid}`, node.frontSocket])
  const { key, certificate } = await ensureCertificate({ directory: join(node.directory, 'keys'), node: 'demo' })
  const config: FrontConfig = {
    key,
    certificate,
    host: '127.0.0.1',
    port: 0,
    daemonSocket: node.frontSocket,
    uploadDir: node.spool.incoming,
    node: 'demo',
    ...changes,
  }
  const log = createLog((line) => node.log.lines.push(line))
  const front = undo.use(await startFrontProcess({ config, uid, log }))
  const release = undo.move()
  return { node, front, config, [Symbol.asyncDispose]: () => release.disposeAsync() }
}

async function version(port: number): Promise<number> {
  const token = 'Authorization: PVEAPIToken=root@pam!ci=letmein'
  return (await curl(['-H', token, `https://127.0.0.1:${port}/api2/json/version`])).status
}

const isAlive = (pid: number) =>
  readFile(`/proc/${pid}/stat`, 'utf8')
    .then((stat) => !/\) [ZX] /.test(stat))
    .catch(() => false)

test('it serves the world with no right at all, and nobody can read its key', async () => {
  await using started = await startNode()
  const { front, node, config } = started
  assert.equal(await version(front.port), 200)
  const pid = front.pid() ?? 0
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  assert.match(status, new RegExp(`^Uid:\\t${uid}\\t${uid}\\t${uid}\\t${uid}$`, 'm'))
  assert.match(status, new RegExp(`^Gid:\\t${uid}\\t${uid}\\t${uid}\\t${uid}$`, 'm'))
  assert.match(status, /^Groups:\s*$/m)
  assert.match(status, /^NoNewPrivs:\t1$/m)
  // The bounding set only limits what a set-uid program could give, and with NoNewPrivs nothing is given.
  for (const thread of await readdir(`/proc/${pid}/task`)) {
    const own = await readFile(`/proc/${pid}/task/${thread}/status`, 'utf8')
    assert.match(own, new RegExp(`^Uid:\\t${uid}\\t${uid}\\t${uid}\\t${uid}$`, 'm'))
    assert.match(own, /^NoNewPrivs:\t1$/m)
    for (const set of ['Inh', 'Prm', 'Eff', 'Amb']) assert.match(own, new RegExp(`^Cap${set}:\\t0+$`, 'm'))
  }
  const secret = config.key.split('\n')[1] ?? ''
  for (const name of ['cmdline', 'environ'])
    assert.ok(!(await readFile(`/proc/${pid}/${name}`, 'latin1')).includes(secret))

  const upload = ['-F', 'content=iso', '-F', 'filename=@-;filename=a.iso']
  const place = `https://127.0.0.1:${front.port}/api2/json/nodes/demo/storage/local/upload`
  const got = await curl(['-b', `PVEAuthCookie=${ticketOf('root@pam')}`, ...upload, place], 'hello')
  assert.equal(got.status, 200, got.body)
  const { tmpfilename } = (JSON.parse(got.body) as { data: { tmpfilename: string } }).data
  assert.equal(await readFile(tmpfilename, 'utf8'), 'hello')
  assert.deepEqual(await readdir(node.spool.incoming), [])
})

test('when it dies it comes back on the same port, and what it was taking in is gone', async () => {
  await using started = await startNode()
  const { front, node } = started
  const first = front.pid() ?? 0
  execFileSync('touch', [join(node.spool.incoming, 'upload-half')])
  process.kill(first, 'SIGKILL')
  await waitFor(async () => front.pid() !== first && (await version(front.port)) === 200, {
    what: 'the front to come back',
    timeoutMs: 60_000,
  })
  assert.deepEqual(await readdir(node.spool.incoming), [])
})

test('it ends with the scope that started it', async () => {
  let pid = 0
  {
    await using started = await startNode()
    pid = started.front.pid() ?? 0
    assert.ok(await isAlive(pid))
  }
  assert.equal(await isAlive(pid), false)
})

test('it ends when the daemon is killed', async () => {
  const program = `
    import { demoNode } from ${JSON.stringify(join(import.meta.dirname, '../../test/contract/demo.ts'))}
    import { startFrontProcess } from ${JSON.stringify(join(import.meta.dirname, 'front-process.ts'))}
    import { ensureCertificate } from ${JSON.stringify(join(import.meta.dirname, '../cluster/self-signed.ts'))}
    import { silentLog } from ${JSON.stringify(join(import.meta.dirname, '../base/log.ts'))}
    import { chmodSync, chownSync, rmSync } from 'node:fs'
    const node = await demoNode()
    chmodSync(node.directory, 0o711)
    chownSync(node.spool.incoming, ${uid}, ${uid})
    const { key, certificate } = await ensureCertificate({ directory: node.directory + '/keys', node: 'demo' })
    const config = { key, certificate, host: '127.0.0.1', port: 0, daemonSocket: node.frontSocket, uploadDir: node.spool.incoming, node: 'demo' }
    const front = await startFrontProcess({ config, uid: ${uid}, log: silentLog })
    rmSync(node.directory, { recursive: true, force: true })
    console.log(front.pid())
  `
  const daemon = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', '--input-type=module-typescript', '-e', program],
    {
      cwd: join(import.meta.dirname, '../..'),
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  )
  const [line] = (await once(daemon.stdout, 'data')) as [Buffer]
  const pid = Number(line.toString())
  assert.ok(await isAlive(pid), `front ${pid}`)
  daemon.kill('SIGKILL')
  await waitFor(async () => !(await isAlive(pid)), { what: 'the front to end', timeoutMs: 60_000 })
})

test('a port in use is named, with what to do', async () => {
  await using started = await startNode()
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  const address = taken.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  const options = { uid, log: createLog(() => {}), config: { ...started.config, port } }
  await assert.rejects(startFrontProcess(options), (error) => {
    assert.ok(isFault(error, 'conflict'))
    assert.equal(error.message, `port ${port} on 127.0.0.1 is in use by another program`)
    assert.match(error.remedy ?? '', /ss -ltnp/)
    return true
  })
  taken.close()
})

test('a port for SPICE that is taken keeps nobody from the API, and is served once it is free', async () => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  const address = taken.address()
  const spicePort = typeof address === 'object' && address !== null ? address.port : 0
  await using started = await startNode({ spicePort })
  const { front, node } = started
  const fault = `port ${spicePort} on 127.0.0.1 is in use by another program`
  assert.deepEqual(front.spice(), { fault })
  assert.equal(await version(front.port), 200)
  assert.ok(node.log.lines.some((line) => line.includes(fault) && line.includes('HAKO_SPICE_PORT')))
  taken.close()
  await once(taken, 'close')
  process.kill(front.pid() ?? 0, 'SIGKILL')
  await waitFor(() => 'port' in (front.spice() ?? {}), { what: 'the port for SPICE', timeoutMs: 20_000 })
  assert.deepEqual(front.spice(), { port: spicePort })
  assert.equal((await curl([`http://127.0.0.1:${spicePort}/`])).status, 405)
})

test('a front that cannot start says where its last words are', async () => {
  await using started = await startNode()
  const options = { uid, log: createLog(() => {}), config: started.config, entry: '/nonexistent/front.ts' }
  await assert.rejects(
    startFrontProcess(options),
    (error) =>
      isFault(error, 'failed') && error.message === 'the front ended before it listened' && error.remedy !== undefined,
  )
})
