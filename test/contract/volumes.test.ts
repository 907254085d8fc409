/** Files on their way into a storage and out of it, through the public port of a real node. */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { request } from 'node:https'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'
import { type Ask, cookieOf, form, logIn, method, proofOf, publicPort, type Session } from './public-port.ts'

const storage = '/nodes/testnode/storage/local'
const upload = `${storage}/upload`
const user = { userid: 'keeper@pve', password: 'correct horse battery' }
const bytes = randomBytes(3 * MiB)
const sha256 = createHash('sha256').update(bytes).digest('hex')
const closing = new AsyncDisposableStack()
let node: TestNode
let base: string
let session: Session
let ask: Ask
let file: string

before(async () => {
  node = closing.use(await nodeUnderTest())
  base = `${node.url}/api2/json`
  await node.api('POST', '/access/users', user)
  await node.api('PUT', '/access/acl', { path: '/storage', users: user.userid, roles: 'PVEDatastoreAdmin' })
  await node.api('PUT', '/access/acl', { path: '/nodes', users: user.userid, roles: 'PVEAuditor' })
  session = await logIn(base, user.userid, user.password)
  ask = publicPort(base, proofOf(session))
  file = join(node.settings.stateDir, 'some file')
  await writeFile(file, bytes)
})
after(() => closing.disposeAsync())

/** A multipart body as browsers and curl make it: fields first, the file last. */
function parts(fields: Readonly<Record<string, string>>, name: string): string[] {
  const plain = Object.entries(fields).flatMap(([key, value]) => ['-F', `${key}=${value}`])
  return [...plain, '-F', `filename=@${file};filename=${name};type=application/octet-stream`]
}

interface Item {
  readonly volid: string
  readonly size: number
  readonly format: string
  readonly content: string
}

async function content(kind: string): Promise<Item[]> {
  return (await ask(`${storage}/content?content=${kind}`)).data as Item[]
}

/** Files on their way in, and all files of the storage. */
async function filesNow(): Promise<{ spooled: string[]; stored: string[] }> {
  const { stateDir } = node.settings
  const below = async (directory: string) => {
    const entries = await readdir(join(stateDir, directory), { recursive: true, withFileTypes: true })
    return entries.filter((entry) => entry.isFile()).map(({ name }) => name)
  }
  return { spooled: await below('upload'), stored: await below('storage/local') }
}

describe('an upload', () => {
  test('of installation media needs no CSRF token, is checked, and is there under its name', async () => {
    const asBrowser = publicPort(base, cookieOf(session))
    const fields = { content: 'iso', 'checksum-algorithm': 'sha256', checksum: sha256 }
    const sent = await asBrowser(upload, ...parts(fields, 'debian-13.iso'))
    assert.deepEqual([sent.status, sent.headers.connection], [200, 'close'], sent.body)
    assert.match(String(sent.data), /^UPID:testnode:[0-9A-F]{8}:[0-9A-F]{8,9}:[0-9A-F]{8}:imgcopy:local:keeper@pve:$/)
    await node.task(sent.data)
    const [item, ...others] = await content('iso')
    assert.deepEqual(
      [item?.volid, item?.size, item?.format, others],
      ['local:iso/debian-13.iso', bytes.length, 'iso', []],
    )
    const { path } = (await ask(`${storage}/content/iso/debian-13.iso`)).data as { path: string }
    assert.deepEqual(await readFile(path), bytes)
    assert.deepEqual(await filesNow(), { spooled: [], stored: ['debian-13.iso'] })
  })

  test('of snippets, images to import and templates goes to their places, and replaces what was there', async () => {
    for (const [kind, name, volid] of [
      ['snippets', 'user-data.yaml', 'local:snippets/user-data.yaml'],
      ['import', 'disk.raw', 'local:import/disk.raw'],
      ['vztmpl', 'debian.tar.zst', 'local:vztmpl/debian.tar.zst'],
      ['snippets', 'user-data.yaml', 'local:snippets/user-data.yaml'],
    ] as const) {
      await node.task((await ask(upload, ...parts({ content: kind }, name))).data)
      assert.deepEqual(
        (await content(kind)).map((one) => one.volid),
        [volid],
      )
    }
    const { spooled, stored } = await filesNow()
    assert.deepEqual([spooled, stored.length], [[], 4])
  })

  test('that is not what it should be is refused and leaves nothing', async () => {
    const before = await filesNow()
    const wrong = { content: 'iso', 'checksum-algorithm': 'sha256', checksum: sha256.replace(/^./, 'x') }
    const other = { ...wrong, checksum: createHash('sha256').digest('hex') }
    for (const [fields, name, field] of [
      [other, 'other.iso', 'checksum'],
      [wrong, 'other.iso', 'checksum'],
      [{ content: 'iso', checksum: sha256 }, 'other.iso', 'checksum-algorithm'],
      [{ content: 'iso', 'checksum-algorithm': 'crc32', checksum: sha256 }, 'other.iso', 'checksum-algorithm'],
      [{ content: 'iso' }, 'other.exe', 'filename'],
      [{ content: 'images' }, 'other.raw', 'content'],
      [{}, 'other.iso', 'content'],
      [{ content: 'iso', tmpfilename: '/etc/shadow' }, 'other.iso', 'tmpfilename'],
    ] as const) {
      const { status, json } = await ask(upload, ...parts(fields, name))
      assert.deepEqual([status, Object.keys(json.errors ?? {})], [400, [field]], JSON.stringify([fields, name]))
    }
    assert.equal((await ask(upload, ...form({ content: 'iso', filename: 'other.iso' }))).status, 506)
    assert.deepEqual(await filesNow(), before)
  })

  test('stays inside the storage, whatever the file calls itself', async () => {
    for (const name of ['../../../etc/evil.iso', '/etc/evil.iso', 'a b;c.iso']) {
      const sent = await ask(upload, ...parts({ content: 'iso' }, `"${name.replaceAll('"', '')}"`))
      if (sent.status === 200) await node.task(sent.data)
      else assert.equal(sent.status, 400, sent.reason)
    }
    const names = (await content('iso')).map(({ volid }) => volid)
    for (const name of names) assert.match(name, /^local:iso\/[\w.+=@-]+\.iso$/)
  })

  test('without the right is refused before its bytes are taken in', async () => {
    await node.api('POST', '/access/users', { userid: 'poor@pve', password: user.password })
    const poor = publicPort(base, proofOf(await logIn(base, 'poor@pve', user.password)))
    const sent = await poor(upload, ...parts({ content: 'iso' }, 'poor.iso'))
    assert.deepEqual(
      [sent.status, sent.reason],
      [403, 'Permission check failed (/storage/local, Datastore.AllocateTemplate)'],
    )
    const gone = await ask('/nodes/testnode/storage/none/upload', ...parts({ content: 'iso' }, 'poor.iso'))
    assert.deepEqual([gone.status, gone.reason], [500, "storage 'none' does not exist"])
    assert.deepEqual((await filesNow()).spooled, [])
  })

  test('that is cut off leaves nothing, and no task', async () => {
    const before = await filesNow()
    const tasksBefore = (await ask('/nodes/testnode/tasks?source=all&typefilter=imgcopy')).json.total
    const call = request(`${base}${upload}`, {
      method: 'POST',
      rejectUnauthorized: false,
      headers: {
        Cookie: `PVEAuthCookie=${session.ticket}`,
        'Content-Type': 'multipart/form-data; boundary=B',
        'Content-Length': String(64 * MiB),
      },
    })
    call.on('error', () => {}) // It is cut off on purpose.
    const field = (name: string, more: string) => `--B\r\nContent-Disposition: form-data; name="${name}"${more}\r\n\r\n`
    call.write(`${field('content', '')}iso\r\n${field('filename', '; filename="cut.iso"')}`)
    call.write(bytes)
    await waitFor(async () => (await filesNow()).spooled.length > 0, {
      what: 'the spooled part',
      timeoutMs: 60_000,
      everyMs: 10,
    })
    call.destroy()
    await waitFor(async () => (await filesNow()).spooled.length === 0, {
      what: 'an empty spool',
      timeoutMs: 60_000,
      everyMs: 10,
    })
    assert.deepEqual(await filesNow(), before)
    assert.equal((await ask('/nodes/testnode/tasks?source=all&typefilter=imgcopy')).json.total, tasksBefore)
  })
})

describe('a volume', () => {
  test('is named with its slash raw or escaped, with its storage or without', async () => {
    for (const name of [
      'local:snippets/user-data.yaml',
      'local:snippets%2Fuser-data.yaml',
      'local%3Asnippets%2Fuser-data.yaml',
      'snippets/user-data.yaml',
    ]) {
      const { status, data } = await ask(`${storage}/content/${name}`)
      assert.deepEqual([status, (data as Item).size], [200, bytes.length], name)
    }
    const stray = await ask(`${storage}/content/other:iso/debian-13.iso`)
    assert.deepEqual([stray.status, Object.keys(stray.json.errors ?? {})], [400, ['volume']])
  })

  test('is made at once, by KiB or with a suffix', async () => {
    for (const [filename, size, expected] of [
      ['vm-100-disk-0.raw', '1024', MiB],
      ['vm-100-disk-1.qcow2', '3M', 3 * MiB],
    ] as const) {
      const made = await ask(`${storage}/content`, ...form({ vmid: '100', filename, size }))
      assert.equal(made.data, `local:100/${filename}`)
      const { size: got } = (await ask(`${storage}/content/local:100/${filename}`)).data as Item
      assert.equal(got, expected)
    }
  })

  test('is removed by its path, by a task, and is then gone', async () => {
    for (const name of ['local:100/vm-100-disk-0.raw', 'local:100%2Fvm-100-disk-1.qcow2', 'snippets/user-data.yaml']) {
      const removed = await ask(`${storage}/content/${name}?delay=5`, ...method('DELETE'))
      assert.match(String(removed.data), /^UPID:testnode:.*:imgdel:(100@)?local:keeper@pve:$/)
      await node.task(removed.data)
      const gone = await ask(`${storage}/content/${name}`)
      assert.deepEqual([gone.status, gone.reason.endsWith('does not exist')], [500, true], gone.reason)
    }
    assert.deepEqual(await content('images'), [])
  })
})
