import assert from 'node:assert/strict'
import { mkdir, mkdtemp, open, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { differences, treeManifest } from '../../../test/fixtures/tree-manifest.ts'
import { machine } from '../exec.ts'
import { attributesOf, dataRangesOf } from './file-extras.ts'
import type { Argv } from '../host.ts'

const host = machine()

suite('a tree with every kind of entry', () => {
  let home: string
  let tree: string
  before(async () => {
    home = await mkdtemp(join(tmpdir(), 'hako-extras-'))
    tree = join(home, 'tree')
    await mkdir(join(tree, 'folder'), { recursive: true })
    const path = (name: string) => join(tree, name)
    await writeFile(path('plain'), 'text')
    await writeFile(Buffer.concat([Buffer.from(`${tree}/`), Buffer.from([0x6e, 0xff, 0x0a])]), 'no letters in its name')
    await writeFile(path('folder/ping'), 'ping', { mode: 0o755 })
    await symlink('/etc/\u00fc', path('link'))
    const tools: Argv[] = [
      ['ln', path('plain'), path('folder/plain-too')],
      ['mkfifo', path('pipe')],
      ['mknod', path('null'), 'c', '1', '3'],
      ['mknod', path('disk'), 'b', '259', '1048575'],
      ['setcap', 'cap_net_raw=ep', path('folder/ping')],
      ['setfattr', '-n', 'user.note', '-v', 'kept', path('folder')],
      ['setfacl', '-d', '-m', 'u:1234:rwx', path('folder')],
      ['setfacl', '-m', 'g:1234:r', path('plain')],
      ['chown', '-h', '4294967294:7', path('link')],
      ['chmod', '6711', path('folder')],
      ['touch', '-d', '1999-12-31T23:59:59.123456789Z', path('plain')],
    ]
    for (const argv of tools) await host.run(argv)
    await using file = await open(path('holes'), 'w')
    await file.truncate(1024 ** 3)
    await file.write(Buffer.alloc(65_536, 1), 0, 65_536, 512 * 1024 ** 2)
    const server = createServer().listen(path('socket'))
    await once(server, 'listening')
    // Closing would take it away.
    await host.run(['ln', path('socket'), path('kept-socket')])
    server.close()
    await once(server, 'close')
  })
  after(() => rm(home, { recursive: true, force: true }))

  test('has attributes Node knows nothing of, links and names of any bytes too', async () => {
    assert.equal(attributesOf(join(tree, 'folder')).get('user.note')?.toString(), 'kept')
    assert.deepEqual([...attributesOf(join(tree, 'folder')).keys()], ['system.posix_acl_default', 'user.note'])
    assert.equal(attributesOf(join(tree, 'folder/ping')).get('security.capability')?.length, 20)
    assert.deepEqual([...attributesOf(join(tree, 'link'))], [])
    assert.throws(() => attributesOf(join(tree, 'absent')), /cannot be listed: errno 2/)
  })

  test('has files with data in few places', async () => {
    const ranges = async (name: string) => {
      await using file = await open(join(tree, name))
      return dataRangesOf(file.fd, (await file.stat()).size)
    }
    assert.deepEqual(await ranges('holes'), [{ offset: 512 * 1024 ** 2, length: 65_536 }])
    assert.deepEqual(await ranges('plain'), [{ offset: 0, length: 4 }])
  })

  test('is the same as its copy, and every change of anything is seen', async () => {
    const copy = join(home, 'copy')
    await host.run(['cp', '--archive', '--sparse=always', tree, copy])
    const before = treeManifest(tree)
    assert.equal(before.length, 12)
    assert.deepEqual(differences(before, treeManifest(copy)), [])
    const changes: [Argv, RegExp][] = [
      [['chmod', '0600', join(copy, 'pipe')], /^pipe: mode was "0644", is "0600"$/],
      [['chown', '-h', '5', join(copy, 'link')], /^link: uid was 4294967294, is 5$/],
      [['ln', '-sfn', 'else', join(copy, 'link')], /^link: target was /],
      [
        ['touch', '-d', '1999-12-31T23:59:59.123456788Z', join(copy, 'plain')],
        /^folder\/plain-too: mtime was "\d+789", is/,
      ],
      [['setfacl', '-b', join(copy, 'plain')], /plain-too: attributes was \{"system\.posix_acl_access":/],
      [['setcap', 'cap_net_raw=p', join(copy, 'folder/ping')], /ping: attributes was/],
      [['fallocate', '-l', '4096', '-o', '0', join(copy, 'holes')], /^holes: (?:holes|mtime) was/],
      [['rm', join(copy, 'kept-socket')], /^kept-socket: is gone$/],
      [
        ['cp', '--remove-destination', '--preserve=all', join(copy, 'plain'), join(copy, 'folder/plain-too')],
        /same was/,
      ],
      [['mknod', join(copy, 'another'), 'p'], /^another: is new$/],
    ]
    for (const [argv, says] of changes) {
      const last = treeManifest(copy)
      await host.run(argv)
      const seen = differences(last, treeManifest(copy)).filter((line) => !/^(?:\.|folder): mtime/.test(line))
      assert.ok(
        seen.some((line) => says.test(line)),
        `${argv.join(' ')}: ${seen.join('; ')}`,
      )
    }
    const content = await readFile(join(copy, 'plain'))
    assert.equal(content.toString(), 'text')
  })

  test('compares ids as they are inside of a container, and leaves out what is not to be compared', async () => {
    const shifted = join(home, 'shifted')
    await mkdir(shifted)
    await writeFile(join(shifted, 'file'), 'x')
    await host.run(['chown', '100007:100008', join(shifted, 'file')])
    const [, line = ''] = treeManifest(shifted, { idOf: (id) => id - 100_000, without: ['mtime'] })
    const { uid, gid, mtime } = JSON.parse(line) as Record<string, unknown>
    assert.deepEqual([uid, gid, mtime], [7, 8, undefined])
  })
})
