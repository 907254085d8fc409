/** Uploads through the public port: what arrives, what is refused, and that nothing stays behind. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { chown, link, mkdtemp, readdir, readFile, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { describe, test } from 'node:test'
import { connect } from 'node:tls'
import { promisify } from 'node:util'
import fc from 'fast-check'
import { systemClock, waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { curl } from '../../test/contract/curl.ts'
import { type Demo, demoNode, ticketOf } from '../../test/contract/demo.ts'
import { createSpool } from './spool.ts'
import { receiveUpload } from './upload.ts'

const asRoot = ['-b', `PVEAuthCookie=${ticketOf('root@pam')}`]
const place = (node: Demo, storage = 'local', format = 'json') =>
  `${node.url}/api2/${format}/nodes/demo/storage/${storage}/upload`

/** Everything that is on disk because of uploads. */
async function spooled(node: Demo): Promise<string[]> {
  return [...(await readdir(node.spool.incoming)), ...(await readdir(node.spool.claimed))]
}

interface Uploaded {
  readonly filename: string
  readonly tmpfilename: string
}

async function file(node: Demo, content: Uint8Array): Promise<string> {
  const path = join(node.directory, `source-${systemRandom.uuid()}`)
  await writeFile(path, content)
  return path
}

describe('an upload', () => {
  test('arrives byte for byte, in a place only root can reach, without a CSRF token', async () => {
    await using node = await demoNode()
    const content = randomBytes(5 * 1024 * 1024 + 17)
    const args = ['-F', 'content=iso', '-F', `filename=@${await file(node, content)};filename=../sub/my image.iso`]
    const got = await curl([...asRoot, ...args, place(node)])
    assert.equal(got.status, 200, got.body)
    assert.equal(got.headers.connection, 'close')
    const { filename, tmpfilename } = (JSON.parse(got.body) as { data: Uploaded }).data
    assert.equal(filename, 'my image.iso')
    assert.ok(tmpfilename.startsWith(`${node.spool.claimed}/`))
    assert.equal(Buffer.compare(await readFile(tmpfilename), content), 0)
    assert.equal((await stat(tmpfilename)).mode & 0o777, 0o600)
    assert.deepEqual(await readdir(node.spool.incoming), [])
  })

  test('may be chunked, and its checksum is held to', async () => {
    await using node = await demoNode()
    const content = randomBytes(100_000)
    const path = await file(node, content)
    const digest = createHash('sha256').update(content).digest('hex')
    const with_ = (checksum: string) => [
      ...asRoot,
      '-H',
      'Transfer-Encoding: chunked',
      '-F',
      'content=iso',
      '-F',
      'checksum-algorithm=sha256',
      '-F',
      `checksum=${checksum}`,
      '-F',
      `filename=@${path};filename=a.iso`,
      place(node),
    ]
    assert.equal((await curl(with_(digest.toUpperCase()))).status, 200)
    const before = (await spooled(node)).length
    const got = await curl(with_('0'.repeat(64)))
    assert.equal(got.status, 400)
    const { errors } = JSON.parse(got.body) as { errors: Record<string, string> }
    assert.equal(errors.checksum, `checksum mismatch: got '${digest}' != expect '${'0'.repeat(64)}'`)
    assert.equal((await spooled(node)).length, before)
  })

  test('on the local socket needs no front', async () => {
    await using node = await demoNode()
    const args = ['--unix-socket', node.apiSocket, '-F', 'content=iso', '-F', 'filename=@-;filename=a.iso']
    const got = await curl([...args, 'http://local/api2/json/nodes/demo/storage/local/upload'], 'hello')
    const { tmpfilename } = (JSON.parse(got.body) as { data: Uploaded }).data
    assert.equal(await readFile(tmpfilename, 'utf8'), 'hello')
  })

  test('put into the spool by root is taken from there, and from nowhere else', async () => {
    await using node = await demoNode()
    const url = 'http://local/api2/json/nodes/demo/storage/local/upload'
    const call = (path: string) =>
      curl(['--unix-socket', node.apiSocket, '-d', `content=iso&filename=a.iso&tmpfilename=${path}`, url])
    await writeFile(join(node.spool.incoming, 'mine'), 'hello')
    const got = await call(join(node.spool.incoming, 'mine'))
    assert.equal(got.status, 200, got.body)
    for (const path of ['/etc/shadow', join(node.spool.incoming, '..', 'x'), join(node.spool.incoming, 'gone')]) {
      assert.notEqual((await call(path)).status, 200, path)
    }
  })
})

describe('refused, and nothing stays', () => {
  const upload = (node: Demo, args: readonly string[], storage?: string) =>
    curl([...args, '-F', 'content=iso', '-F', 'filename=@-;filename=a.iso', place(node, storage)], randomBytes(300_000))

  test('without login, without the right, where no upload is taken', async () => {
    await using node = await demoNode()
    assert.equal((await upload(node, [])).status, 401)
    const asAnn = ['-b', `PVEAuthCookie=${ticketOf('ann@pve')}`]
    const denied = await upload(node, asAnn)
    assert.deepEqual(
      [denied.status, denied.reason],
      [403, 'Permission check failed (/storage/local, Datastore.AllocateTemplate)'],
    )
    const asBob = ['-b', `PVEAuthCookie=${ticketOf('bob@pve')}`]
    assert.equal((await upload(node, asBob)).status, 200)
    const ext = await curl(
      [...asAnn, '-F', 'content=iso', '-F', 'filename=@-;filename=a', place(node, 'local', 'extjs')],
      'x',
    )
    assert.deepEqual([ext.status, (JSON.parse(ext.body) as { success: number }).success], [200, 0])
    const csrf = ['-H', 'CSRFPreventionToken: csrf of root@pam', '-X', 'POST']
    const elsewhere = await curl(
      [...asRoot, ...csrf, '-F', 'filename=@-;filename=a', `${node.url}/api2/json/nodes/demo/qemu`],
      'x',
    )
    assert.equal(elsewhere.status, 506)
    assert.equal((await spooled(node)).length, 1)
  })

  test('wrong fields, fields after the file, two files, no file, a name of our own', async () => {
    await using node = await demoNode()
    const part = ['-F', 'filename=@-;filename=a.iso']
    const cases: (readonly [readonly string[], string])[] = [
      [['-F', 'content=nonsense', ...part], 'content'],
      [['-F', 'content=iso', '-F', 'what=1', ...part], 'what'],
      [[...part, '-F', 'content=iso'], 'content'],
      [['-F', 'content=iso', ...part, '-F', 'filename=@/etc/hostname;filename=b'], 'filename'],
      [['-F', 'content=iso'], 'filename'],
      [['-F', 'content=iso', '-F', 'file=@-;filename=a.iso'], 'file'],
      [['-F', 'content=iso', '-F', 'tmpfilename=/etc/shadow', ...part], 'tmpfilename'],
      [['-F', 'content=iso', '-F', 'checksum=ab', '-F', 'checksum-algorithm=crc', ...part], 'checksum-algorithm'],
      [['-F', 'content=iso', '-F', `checksum=${'a'.repeat(70_000)}`, ...part], 'checksum'],
    ]
    for (const [args, field] of cases) {
      const got = await curl([...asRoot, ...args, place(node)], 'hello')
      assert.equal(got.status, 400, `${args.join(' ')}: ${got.body}`)
      assert.deepEqual(Object.keys((JSON.parse(got.body) as { errors?: object }).errors ?? {}), [field], got.body)
    }
    const noBoundary = await curl([...asRoot, '-H', 'Content-Type: multipart/form-data', '-d', 'x', place(node)])
    assert.equal(noBoundary.status, 400)
    assert.deepEqual(await spooled(node), [])
  })

  test('a call that fails behind the upload takes the file with it', async () => {
    await using node = await demoNode()
    const got = await upload(node, asRoot, 'broken')
    assert.deepEqual([got.status, got.reason], [500, "storage 'broken' does not exist"])
    assert.deepEqual(await spooled(node), [])
  })

  test('cut off in the middle leaves nothing', async () => {
    await using node = await demoNode()
    const socket = connect({ host: '127.0.0.1', port: node.port, ca: node.certificate })
    socket.on('error', () => {})
    const head = [
      'POST /api2/json/nodes/demo/storage/local/upload HTTP/1.1',
      'Host: x',
      `Cookie: ${asRoot[1]}`,
      'Content-Type: multipart/form-data; boundary=XX',
      'Content-Length: 10000000',
      '',
      '--XX\r\nContent-Disposition: form-data; name="content"\r\n\r\niso',
      '--XX\r\nContent-Disposition: form-data; name="filename"; filename="a.iso"\r\n\r\n',
    ]
    socket.write(head.join('\r\n'))
    socket.write(randomBytes(2_000_000))
    const growing = await waitFor(
      async () => {
        const [name] = await readdir(node.spool.incoming)
        return name !== undefined && (await stat(join(node.spool.incoming, name))).size > 0 && name
      },
      { what: 'the spooled file', timeoutMs: 60_000 },
    )
    assert.match(growing, /^upload-/)
    socket.destroy()
    await waitFor(async () => (await spooled(node)).length === 0, { what: 'an empty spool', timeoutMs: 60_000 })
    const held = await Promise.all(
      (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')),
    )
    assert.deepEqual(
      held.filter((path) => path.startsWith(node.spool.incoming)),
      [],
    )
    assert.doesNotMatch(node.log.lines.join('\n'), /bug/)
  })
})

test('a full disk says how much is needed, or leaves nothing when it did not know', async () => {
  const run = promisify(execFile)
  await using undo = new AsyncDisposableStack()
  const directory = await mkdtemp(join(tmpdir(), 'hako-full-'))
  undo.defer(() => rm(directory, { recursive: true, force: true }))
  await run('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'hako-full', directory])
  undo.defer(async () => void (await run('umount', [directory])))
  const spool = createSpool({ directory, uid: 0, random: systemRandom })
  await spool.open()
  await using node = await demoNode({ spool })
  const args = [...asRoot, '-F', 'content=iso', '-F', 'filename=@-;filename=a.iso', place(node)]
  const known = await curl(['-H', 'Expect:', ...args], Buffer.alloc(3_000_000, 'x'))
  assert.equal(known.status, 500)
  assert.match(
    known.reason,
    /^no space for the upload: it needs 2\.9 MiB, and 256 MiB must stay free; '.*' has .* free$/,
  )
  assert.equal((JSON.parse(known.body) as { kind: string }).kind, 'exhausted')
  const unknown = await curl(['-H', 'Transfer-Encoding: chunked', ...args], Buffer.alloc(3_000_000, 'x'))
  assert.equal(unknown.status, 500)
  assert.match(unknown.reason, /^no space left on the device of /)
  assert.deepEqual(await spooled(node), [])
})

test('multipart is read the same however its bytes are cut', async () => {
  await using undo = new AsyncDisposableStack()
  const directory = await mkdtemp(join(tmpdir(), 'hako-upload-'))
  undo.defer(() => rm(directory, { recursive: true, force: true }))
  const content = fc.uint8Array({ maxLength: 3000 })
  await fc.assert(
    fc.asyncProperty(
      content,
      fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1 }),
      fc.nat(),
      async (bytes, cuts, cutOff) => {
        const body = Buffer.concat([
          Buffer.from('--B\r\nContent-Disposition: form-data; name="content"\r\n\r\niso\r\n'),
          Buffer.from('--B\r\nContent-Disposition: form-data; name="filename"; filename="ü.iso"\r\n\r\n'),
          bytes,
          Buffer.from('\r\n--B--\r\n'),
        ])
        const pieces: Buffer[] = []
        for (let at = 0, turn = 0; at < body.length; turn += 1) {
          const size = cuts[turn % cuts.length] ?? 1
          pieces.push(body.subarray(at, at + size))
          at += size
        }
        const headers = { 'content-type': 'multipart/form-data; boundary=B' }
        const name = systemRandom.uuid()
        const options = { directory, name, query: {} }
        const upload = await receiveUpload(Readable.from(pieces), headers, options)
        assert.deepEqual({ ...upload.fields }, { content: 'iso', filename: 'ü.iso' })
        assert.equal(Buffer.compare(await readFile(upload.path), bytes), 0)
        assert.equal(upload.sizeBytes, bytes.length)
        await rm(upload.path)
        // Any shorter body is refused and leaves no file.
        const short = body.subarray(0, cutOff % (body.length - 6))
        await assert.rejects(receiveUpload(Readable.from([short]), headers, options), (error) =>
          isFault(error, 'invalid'),
        )
        assert.deepEqual(await readdir(directory), [])
      },
    ),
    { numRuns: 60 },
  )
})

test('the daemon takes over plain files of the front only', async () => {
  await using undo = new AsyncDisposableStack()
  const directory = await mkdtemp(join(tmpdir(), 'hako-spool-'))
  undo.defer(() => rm(directory, { recursive: true, force: true }))
  const spool = createSpool({ directory, uid: 4242, random: systemRandom })
  await spool.open()
  const at = (name: string) => join(spool.incoming, name)
  await writeFile(at('good'), 'x')
  await chown(at('good'), 4242, 4242)
  const path = await spool.claim('good')
  assert.deepEqual([(await stat(path)).uid, await readFile(path, 'utf8')], [0, 'x'])
  await symlink('/etc/shadow', at('link'))
  await writeFile(at('hard'), 'x')
  await link(at('hard'), at('hard2'))
  await writeFile(at('foreign'), 'x')
  await chown(at('foreign'), 5, 5)
  for (const name of ['link', 'hard', 'foreign', 'absent', '..', '../x', 'a/b', '']) {
    await assert.rejects(spool.claim(name), (error) => isFault(error), name)
  }
  assert.deepEqual(await readdir(spool.claimed), [path.slice(spool.claimed.length + 1)])
  // A task may still read its file when the daemon comes back, but not a day later.
  await spool.open()
  assert.deepEqual([(await readdir(spool.incoming)).length, (await readdir(spool.claimed)).length], [0, 1])
  // One that no task was started for goes at once.
  await writeFile(join(spool.claimed, 'upload-left'), 'x')
  const mine = (one: string) =>
    createSpool({ directory, uid: 4242, random: systemRandom, isInUse: async (it) => it === one })
  await mine(path).open()
  assert.deepEqual(await readdir(spool.claimed), [path.slice(spool.claimed.length + 1)])
  const clock = { ...systemClock, now: () => systemClock.now() + 25 * 60 * 60 * 1000 }
  await createSpool({ directory, uid: 4242, random: systemRandom, clock }).open()
  assert.deepEqual(await readdir(spool.claimed), [])
})
