/** What btrfs's own tool says, and what is built on it, on a real file system. */
import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { GiB } from '#base/bytes.ts'
import { type BtrfsDisk, btrfsDisk } from '../../../test/fixtures/btrfs-disk.ts'
import { receiveSubvolume, sendSubvolume } from './btrfs-streams.ts'
import { createSubvolume, isOnBtrfs, isSubvolume, isSummedUp, limitSubvolume, parseQuotas } from './btrfs.ts'
import {
  parseSubvolumes,
  quotasOf,
  removeSubvolume,
  snapshotSubvolume,
  subvolumeId,
  subvolumesIn,
  writeInPlace,
} from './btrfs.ts'
import { exchange } from '../files/exchange.ts'
import { machine } from '../exec.ts'

const host = machine()

suite('what the tool prints', () => {
  test('is read as subvolumes with what they lie in', () => {
    const text = 'ID 260 gen 16 top level 5 path a\nID 261 gen 16 top level 260 path a/with blank\n'
    assert.deepEqual(parseSubvolumes(text), [
      { id: 260, parent: 5, path: 'a' },
      { id: 261, parent: 260, path: 'a/with blank' },
    ])
    assert.deepEqual(parseSubvolumes(''), [])
  })

  test('is read as sizes and limits of subvolumes', () => {
    const text = [
      'Qgroupid    Referenced    Exclusive  Max referenced  Max exclusive   Path ',
      '--------    ----------    ---------  --------------  -------------   ---- ',
      '0/5              16384        16384            none           none   <toplevel>',
      '0/258          4210688        16384         8388608           none   images/100/subvol-100-disk-0.subvol',
      '1/100            16384        16384            none           none   -',
    ].join('\n')
    assert.deepEqual(
      [...parseQuotas(text)],
      [
        [5, { usedBytes: 16_384, limitBytes: undefined }],
        [258, { usedBytes: 4_210_688, limitBytes: 8_388_608 }],
      ],
    )
  })
})

suite('a btrfs file system', () => {
  let disk: BtrfsDisk
  before(async () => {
    disk = await btrfsDisk(GiB)
  })
  after(() => disk[Symbol.asyncDispose]())
  const at = (...parts: string[]) => join(disk.path, ...parts)

  test('is told from others, and its subvolumes from folders', async () => {
    assert.deepEqual([await isOnBtrfs(disk.path), await isOnBtrfs('/proc')], [true, false])
    await mkdir(at('plain'))
    await createSubvolume(host, at('first'))
    await createSubvolume(host, at('second'))
    const kinds = [await isSubvolume(at('plain')), await isSubvolume(at('first')), await isSubvolume(at('none'))]
    assert.deepEqual(kinds, [false, true, false])
    assert.ok(subvolumeId(at('first')) < subvolumeId(at('second')))
    assert.throws(() => subvolumeId('/proc'), /not on a btrfs file system/)
  })

  test('sums up what is written to files, but for those that are written in place', async () => {
    for (const [file, isInPlace] of [
      ['summed', false],
      ['in-place', true],
    ] as const) {
      await writeFile(at(file), '')
      if (isInPlace) await writeInPlace(host, at(file))
      assert.equal(await isSummedUp(at(file)), !isInPlace, file)
    }
    assert.equal(await isSummedUp('/proc/version'), false)
  })

  test('counts what subvolumes hold once one of them has a limit', async () => {
    assert.equal(await quotasOf(host, disk.path), undefined)
    await createSubvolume(host, at('limited'))
    await limitSubvolume(host, at('limited'), 1_048_576)
    const quotas = await quotasOf(host, disk.path)
    assert.equal(quotas?.of.get(subvolumeId(at('limited')))?.limitBytes, 1_048_576)
  })

  test('loses a subvolume with all that are inside it, and none beside it', async () => {
    for (const path of ['outer', 'outer/inner', 'outer/inner/deep', 'outer-beside']) {
      await createSubvolume(host, at(path))
    }
    const inside = (await subvolumesIn(host, at('outer'))).map(({ path }) => path)
    assert.deepEqual(inside, ['inner', 'inner/deep'])
    await removeSubvolume(host, at('outer'))
    await removeSubvolume(host, at('outer'))
    assert.deepEqual([await isSubvolume(at('outer')), await isSubvolume(at('outer-beside'))], [false, true])
  })

  test('takes a subvolume as a stream, and nothing of one that is cut', async () => {
    await createSubvolume(host, at('source'))
    await writeFile(at('source/file'), Buffer.alloc(300_000, 'x'))
    await snapshotSubvolume(host, at('source'), at('sent'), { isReadOnly: true })
    await mkdir(at('inbox'))
    await receiveSubvolume(at('inbox'), sendSubvolume(at('sent')))
    assert.equal((await readFile(at('inbox/sent/file'))).length, 300_000)
    await mkdir(at('cut'))
    async function* half() {
      for await (const part of sendSubvolume(at('sent'))) {
        yield part.subarray(0, part.length / 2)
        return
      }
    }
    await assert.rejects(receiveSubvolume(at('cut'), half()), /btrfs receive: /)
    await assert.rejects(
      (async () => {
        for await (const _ of sendSubvolume(at('source')));
      })(),
      /btrfs send: .*read-only/,
    )
    for (const folder of ['inbox', 'cut']) await removeSubvolume(host, at(folder))
    assert.ok(!(await readdir(disk.path)).includes('cut'))
  })
})

test('two names change places, or nothing happens', async () => {
  const { stdout } = await host.run(['mktemp', '-d', '--tmpdir', 'hako-exchange-XXXXXX'])
  const folder = stdout.trim()
  try {
    await writeFile(join(folder, 'one'), '1')
    await mkdir(join(folder, 'two'))
    exchange(join(folder, 'one'), join(folder, 'two'))
    assert.equal(await readFile(join(folder, 'two'), 'utf8'), '1')
    assert.throws(() => exchange(join(folder, 'one'), join(folder, 'none')), /cannot change places: errno 2/)
  } finally {
    await rm(folder, { recursive: true })
  }
})
