import assert from 'node:assert/strict'
import { chmod, mkdir, mkdtemp, readdir, readFile, rename, stat, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { type Log, silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { machine } from '#host/exec.ts'
import type { IdMap } from '#host/lxc/id-map.ts'
import { removeTree } from '#host/files/remove-tree.ts'
import { paxOf, type TarMember, tarOf } from '../../../test/fixtures/tar-writer.ts'
import { treeManifest } from '../../../test/fixtures/tree-manifest.ts'
import { KeptTrees } from './kept-trees.ts'
import { partsOf, secondHalf, type Unit } from './tree-halves.ts'
import { unpackTemplate } from './unpack.ts'

const host = machine()
const idMap: IdMap = (['uid', 'gid'] as const).map((kind) => ({ kind, inside: 0, outside: 100_000, count: 65_536 }))

suite('trees of templates', () => {
  let home: string
  before(async () => {
    home = await mkdtemp(join(tmpdir(), 'hako-kept-'))
    await chmod(home, 0o700)
  })
  after(() => removeTree(host, home))

  let made = 0
  const place = async (name: string) => {
    const path = join(home, `${name}${(made += 1)}`)
    await mkdir(path)
    return path
  }
  /** Counts what went wrong without anybody else noticing. */
  const kept = async () => {
    const warnings: string[] = []
    const log: Log = { ...silentLog, warn: (line, facts) => void warnings.push(`${line} ${JSON.stringify(facts)}`) }
    const directory = await place('kept')
    const trees = new KeptTrees({ host, clock: systemClock, random: systemRandom, log, directory })
    const fill = async (archive: string, prepare?: (rootfs: string) => Promise<void>) => {
      const rootfs = await place('rootfs')
      await prepare?.(rootfs)
      const result = await trees.fill({ archive, rootfs, idMap })
      return { rootfs, result }
    }
    const stored = async () => (await readdir(directory)).filter((name) => !name.endsWith('.used'))
    const lookAhead = () => trees.lookAhead(new AbortController().signal)
    return { fill, lookAhead, directory, stored, warnings }
  }
  const archiveOf = async (members: readonly TarMember[]) => {
    const archive = join(await place('archive'), 'template.tar')
    await writeFile(archive, tarOf(members))
    return archive
  }

  test('are the same, bit for bit, whether they were unpacked or copied', async () => {
    const archive = await archiveOf(everyKind())
    const plain = await place('plain')
    const expected = await unpackTemplate({ archive, rootfs: plain, idMap })
    const { fill, stored, warnings } = await kept()
    for (const [round, trees] of [0, 1, 1, 1].entries()) {
      const { rootfs, result } = await fill(archive)
      assert.deepEqual(result, expected)
      assert.equal((await stored()).length, trees, `round ${round}`)
      assert.deepEqual(treeManifest(rootfs), treeManifest(plain), `round ${round}`)
    }
    assert.deepEqual(warnings, [])
  })

  test('are copied beforehand for the next one, who gets the same', async () => {
    const archive = await archiveOf(everyKind())
    const { fill, lookAhead, directory, stored, warnings } = await kept()
    const first = await fill(archive)
    await lookAhead()
    assert.deepEqual(await stored(), [], 'nobody used it twice')
    await fill(archive)
    const next = async () => (await stored()).filter((name) => name.startsWith('.next'))
    for (const round of [0, 1]) {
      await lookAhead()
      await lookAhead()
      const [made, ...others] = await next()
      assert.deepEqual(others, [])
      const { ino } = await stat(join(directory, String(made)))
      const { rootfs, result } = await fill(archive)
      assert.equal((await stat(rootfs)).ino, ino, 'it was copied')
      assert.deepEqual(result, first.result)
      assert.deepEqual(treeManifest(rootfs), treeManifest(first.rootfs), `round ${round}`)
    }
    assert.deepEqual(await next(), [])
    // Of another boot, and what somebody was making when the machine was switched off.
    const [key = ''] = await stored()
    for (const name of [`.next-00000000-${key}`, '.next.making', '.next.gone']) await mkdir(join(directory, name))
    await lookAhead()
    assert.equal((await next()).length, 1)
    assert.doesNotMatch(String(await next()), /00000000/)
    const longAgo = new Date(Date.now() - 60 * 60_000)
    await utimes(join(directory, key), longAgo, longAgo)
    await lookAhead()
    assert.deepEqual(await stored(), [key])
    assert.deepEqual(warnings, [])
  })

  test('are of the archive as it is now, not as it was', async () => {
    const archive = await archiveOf([root, { name: './which', content: 'old' }])
    const { fill } = await kept()
    for (let round = 0; round < 3; round += 1) await fill(archive)
    const other = await archiveOf([root, { name: './which', content: 'new' }])
    await utimes(other, 1, 1)
    await rename(other, archive)
    assert.equal(await readFile(join((await fill(archive)).rootfs, 'which'), 'utf8'), 'new')
  })

  test('are unpacked where a kept one is damaged', async () => {
    const archive = await archiveOf(everyKind())
    const { fill, stored, directory, warnings } = await kept()
    const { rootfs: whole } = await fill(archive)
    await fill(archive)
    const [name = ''] = await stored()
    await removeTree(host, join(directory, name, '1'))
    const { rootfs } = await fill(archive)
    assert.deepEqual(treeManifest(rootfs), treeManifest(whole))
    assert.match(warnings.join(), /could not be copied/)
  })

  test('have nothing of the file system they were unpacked in', async () => {
    const archive = await archiveOf(everyKind())
    const plain = await place('plain')
    await unpackTemplate({ archive, rootfs: plain, idMap })
    const { fill, stored, warnings } = await kept()
    const mounted = async (rootfs: string) => {
      await host.run(['mount', '-t', 'tmpfs', '-o', 'mode=0755', 'hako-test', rootfs])
      await mkdir(join(rootfs, 'lost+found'))
    }
    for (let round = 0; round < 2; round += 1) await host.run(['umount', (await fill(archive, mounted)).rootfs])
    assert.equal((await stored()).length, 1)
    const { rootfs } = await fill(archive)
    assert.deepEqual(treeManifest(rootfs), treeManifest(plain))
    assert.deepEqual(warnings, [])
  })

  test('are few, and those that were used last', async () => {
    const { fill, stored, directory } = await kept()
    const first = await archiveOf([root, { name: './first' }])
    for (let round = 0; round < 2; round += 1) await fill(first)
    const [oldest = ''] = await stored()
    await utimes(join(directory, oldest), 1, 1_000)
    for (let at = 0; at < 5; at += 1) {
      const archive = await archiveOf([root, { name: `./${at}` }])
      for (let round = 0; round < 2; round += 1) await fill(archive)
    }
    const left = await stored()
    assert.equal(left.length, 4)
    assert.ok(!left.includes(oldest))
    assert.ok(left.every((name) => !name.startsWith('.')))
  })
})

test('halves weigh about the same, and files with several names stay together', () => {
  const file = (path: string, weight: number, hasLinks = false): Unit => ({ path, weight, hasLinks })
  const folder = (path: string, units: Unit[]): Unit => ({
    path,
    units,
    weight: units.reduce((sum, unit) => sum + unit.weight, 1),
    hasLinks: units.some((unit) => unit.hasLinks),
  })
  const lib = folder('usr/lib', [file('usr/lib/a', 30), file('usr/lib/b', 20), file('usr/lib/c', 40, true)])
  const tree = folder('', [folder('usr', [lib, folder('usr/bin', [file('usr/bin/x', 5)])]), folder('etc', [])])
  const { folders, units } = partsOf(tree)
  assert.deepEqual(folders, ['.', 'usr', 'usr/lib'])
  assert.deepEqual(
    units.map(({ path }) => path),
    ['usr/lib/a', 'usr/lib/b', 'usr/lib/c', 'usr/bin', 'etc'],
  )
  assert.deepEqual(secondHalf(units), ['usr/lib/a', 'usr/bin', 'etc'])
})

const root: TarMember = { name: './', type: '5', mode: 0o755 }

/** Of every kind of file one in each half, and folders that both have, with times and rights of their own. */
function everyKind(): TarMember[] {
  const many = ['a', 'b', 'c', 'd'].flatMap((name): TarMember[] => [
    { name: `./usr/lib/${name}/`, type: '5', mode: 0o2750, gid: 42 },
    { name: `./usr/lib/${name}/big`, mode: 0o4711, content: name.repeat(300_000) },
    { name: `./usr/lib/${name}/link`, type: '2', target: '../../nowhere' },
    { name: `./usr/lib/${name}/pipe`, type: '6', mode: 0o600, uid: 33 },
  ])
  return [
    { ...root, mode: 0o750, gid: 7 },
    { name: './usr/', type: '5', mode: 0o1777 },
    { name: './usr/lib/', type: '5', mode: 0o711, uid: 5 },
    ...many,
    paxOf({ 'SCHILY.xattr.user.note': 'kept' }),
    { name: './usr/noted', content: 'x' },
    paxOf({ 'SCHILY.xattr.user.note': 'of a folder', mtime: '1700000001.123456789' }),
    { name: './usr/share/', type: '5', mode: 0o755 },
    { name: './usr/one', content: 'y'.repeat(10_000) },
    { name: './etc/', type: '5', mode: 0o700 },
    { name: './etc/other', type: '1', target: './usr/one' },
  ]
}
