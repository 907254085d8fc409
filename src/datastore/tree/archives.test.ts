/** A folder of a backup as an archive, unpacked by the programs people have. */
import assert from 'node:assert/strict'
import { createWriteStream, mkdirSync, mkdtempSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { after, before, suite, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { removeTree } from '#host/files/remove-tree.ts'
import { temporaryDatastore, type TemporaryDatastore } from '../../../test/fixtures/sealed-datastore.ts'
import { makeEveryEntry, unsettledSource } from '../../../test/fixtures/every-entry.ts'
import { differences, treeManifest } from '../../../test/fixtures/tree-manifest.ts'
import type { BackupReader } from '../restore/reader.ts'
import { tarOf } from './tar.ts'
import { zipOf } from './zip.ts'

const host = machine()
const id = { namespace: '', type: 'ct', id: '100', time: 1_795_000_000 } as const

suite('a tree in a backup', () => {
  const home = mkdtempSync(join(tmpdir(), 'hako-archives-'))
  const tree = join(home, 'tree')
  let temporary: TemporaryDatastore
  let reader: BackupReader
  before(async () => {
    mkdirSync(tree)
    await makeEveryEntry(tree)
    writeFileSync(join(tree, 'random'), Buffer.from(Array.from({ length: 2_000_000 }, (_, at) => (at * at) % 251)))
    await host.run(['chown', '3000000:3000000', join(tree, 'random')])
    await host.run(['setfattr', '-n', 'user.a=b', '-v', '0x00ff0a', join(tree, 'random')])
    temporary = await temporaryDatastore()
    const open = await temporary.reopen()
    await using writer = await open.begin(id)
    await writer.addTree('rootfs', unsettledSource({ root: tree }))
    await writer.commit()
    reader = await open.open(id)
  })
  after(async () => {
    await reader[Symbol.asyncDispose]()
    await temporary[Symbol.asyncDispose]()
    await removeTree(host, home)
  })

  let archives = 0
  async function written(stream: AsyncGenerator<Buffer>): Promise<{ file: string; folder: string }> {
    const folder = join(home, `unpacked-${(archives += 1)}`)
    mkdirSync(folder)
    const file = join(home, `archive-${archives}`)
    await pipeline(Readable.from(stream), createWriteStream(file))
    return { file, folder }
  }

  test('is a tar archive from which GNU tar makes the same tree, to the last attribute', async () => {
    const { file, folder } = await written(tarOf(reader, 'rootfs', '/'))
    await host.run(['tar', '--extract', '--acls', '--xattrs', '--xattrs-include=*', '-C', folder, '-f', file])
    const differ = differences(treeManifest(tree), treeManifest(folder))
    assert.deepEqual(
      differ.map((line) => line.slice(0, 200)),
      ['kept-socket: is gone'],
    )
  })

  test('is one for a part of it, with files whose first name is elsewhere', async () => {
    const { file, folder } = await written(tarOf(reader, 'rootfs', '/folder'))
    await host.run(['tar', '--extract', '--acls', '--xattrs', '--xattrs-include=*', '-C', folder, '-f', file])
    assert.equal(readFileSync(join(folder, 'folder/plain-too'), 'utf8'), 'text')
    const [was, is] = [join(tree, 'folder'), join(folder, 'folder')].map((path) => treeManifest(path))
    const relative = (lines: readonly string[] = []) => lines.map((line) => line.replace(/"same":"[^"]*",?/, ''))
    assert.deepEqual(
      differences(relative(was), relative(is)).map((line) => line.slice(0, 200)),
      [],
    )
    const one = await written(tarOf(reader, 'rootfs', 'folder/deeper/su'))
    assert.match((await host.run(['tar', '-tvf', one.file])).stdout, /^-rwsr-xr-x .* su\n$/)
    await assert.rejects(written(tarOf(reader, 'rootfs', 'folder/none')), (error) => isFault(error, 'missing'))
  })

  test('is a zip archive that is unpacked with names, modes, links and times', async () => {
    const { file, folder } = await written(zipOf(reader, 'rootfs', ''))
    await host.run([
      'python3',
      '-c',
      'import sys, zipfile; assert zipfile.ZipFile(sys.argv[1]).testzip() is None',
      file,
    ])
    await host.run(['unzip', '-q', '-K', file, '-d', folder], { okCodes: [0, 1] })
    for (const name of ['random', 'large', 'folder/deeper/su', 'folder/plain-too', '\u00fcml\u00e4ut', 'nothing']) {
      assert.ok(readFileSync(join(folder, name)).equals(readFileSync(join(tree, name))), name)
    }
    const lines = new Map(
      [tree, folder].flatMap((path, at) =>
        treeManifest(path, { without: ['uid', 'gid', 'attributes', 'same', 'holes'] }).map((line) => {
          const { path: name, mode, mtime, kind, target } = JSON.parse(line) as Record<string, string>
          return [`${at} ${name}`, `${kind} ${mode} ${target} ${BigInt(mtime ?? 0) / 1_000_000_000n}`] as const
        }),
      ),
    )
    for (const name of ['plain', 'folder/ping', 'empty', 'folder/deeper']) {
      assert.equal(lines.get(`1 ${name}`), lines.get(`0 ${name}`), name)
    }
    assert.equal(readlinkSync(join(folder, 'link')), '/etc/\u00fc')
  })
})
