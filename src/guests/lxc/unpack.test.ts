import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { chmod, lstat, mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { KiB, MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import type { IdMap } from '#host/lxc/id-map.ts'
import { removeTree } from '#host/files/remove-tree.ts'
import { memberBytes, paxOf, tarEnd, type TarMember, tarOf } from '../../../test/fixtures/tar-writer.ts'
import { unpackTemplate, type UnpackTemplate } from './unpack.ts'

const host = machine()
const first = 100_000
const idMap: IdMap = (['uid', 'gid'] as const).map((kind) => ({ kind, inside: 0, outside: first, count: 65_536 }))
const directory: TarMember = { name: './', type: '5', mode: 0o755 }

suite('a template', () => {
  let home: string
  let made = 0
  before(async () => {
    home = await mkdtemp(join(tmpdir(), 'hako-unpack-'))
    // Whose parents the container's root could not enter: it must do without.
    await chmod(home, 0o700)
  })
  after(() => removeTree(host, home))

  const unpack = async (content: Uint8Array, more: Partial<UnpackTemplate> & { end?: string } = {}) => {
    const { end = '.tar', ...wish } = more
    const place = join(home, String((made += 1)))
    const rootfs = join(place, 'rootfs')
    await mkdir(rootfs, { recursive: true })
    // What a way out would reach first.
    await writeFile(join(place, 'outside'), 'untouched')
    const archive = join(place, `template${end}`)
    await writeFile(archive, content)
    const result = await unpackTemplate({ archive, rootfs, idMap, ...wish }).catch((fault: unknown) => fault)
    assert.equal(await readFile(join(place, 'outside'), 'utf8'), 'untouched')
    assert.deepEqual((await readdir(place)).toSorted(), ['outside', 'rootfs', `template${end}`])
    return { rootfs, result }
  }
  const refused = async (members: readonly TarMember[], kind: Parameters<typeof isFault>[1], says: RegExp) => {
    const { result, rootfs } = await unpack(tarOf(members))
    assert.ok(isFault(result, kind), String(result))
    assert.match(result.message, says)
    return rootfs
  }

  test('comes out with the ids of the map and the modes it had, whatever it is packed with', async () => {
    const members: TarMember[] = [
      directory,
      { name: './etc/', type: '5', mode: 0o755 },
      { name: './etc/shadow', mode: 0o640, gid: 42, content: 'root:*:1::::::\n' },
      { name: './bin/', type: '5', mode: 0o1777 },
      { name: './bin/su', mode: 0o4755, content: 'su' },
      { name: './bin/su-too', type: '1', target: './bin/su' },
      { name: './bin/sh', type: '2', target: '/usr/bin/dash' },
      { name: './run/pipe', type: '6', mode: 0o600, uid: 7 },
    ]
    const tar = tarOf(members)
    const plain = join(home, 'plain.tar')
    await writeFile(plain, tar)
    await host.run(['xz', '--keep', plain])
    await host.run(['bzip2', '--keep', plain])
    const packed = {
      '.tar': tar,
      '.tar.gz': gzipSync(tar),
      '.tar.zst': zstdCompressSync(tar),
      '.tar.xz': await readFile(`${plain}.xz`),
      '.tar.bz2': await readFile(`${plain}.bz2`),
    }
    for (const [end, content] of Object.entries(packed)) {
      const { result, rootfs } = await unpack(content, { end })
      assert.deepEqual(result, { entries: members.length, bytes: tar.length, leftOut: 0 }, end)
      const facts = async (path: string) => {
        const { uid, gid, mode, nlink } = await lstat(join(rootfs, path))
        return [uid - first, gid - first, (mode & 0o7777).toString(8), nlink]
      }
      assert.deepEqual(await facts('etc/shadow'), [0, 42, '640', 1])
      assert.deepEqual(await facts('bin/su'), [0, 0, '4755', 2])
      assert.deepEqual((await facts('bin')).slice(0, 3), [0, 0, '1777'])
      assert.deepEqual(await facts('run/pipe'), [7, 0, '600', 1])
      assert.equal((await stat(join(rootfs, 'bin/su'))).ino, (await stat(join(rootfs, 'bin/su-too'))).ino)
      assert.equal(await readlink(join(rootfs, 'bin/sh')), '/usr/bin/dash')
    }
  })

  test('keeps what GNU tar kept of capabilities, attributes, access lists and holes', async () => {
    const tree = join(home, 'tree')
    await mkdir(tree)
    const path = (name: string) => join(tree, name)
    for (const name of ['ping', 'noted', 'shared']) await writeFile(path(name), name)
    await host.run(['setcap', 'cap_net_raw=ep', path('ping')])
    await host.run(['setfattr', '-n', 'user.note', '-v', 'kept', path('noted')])
    await host.run(['setfacl', '-m', 'u:1234:rwx', path('shared')])
    await host.run(['truncate', '-s', '64M', path('holes')])
    for (const format of ['pax', 'gnu']) {
      const archive = join(home, `${format}.tar`)
      const xattrs = format === 'pax' ? ['--xattrs', '--xattrs-include=*', '--acls'] : []
      await host.run([
        'tar',
        '-c',
        '-S',
        `--format=${format}`,
        '--numeric-owner',
        ...xattrs,
        '-C',
        tree,
        '-f',
        archive,
        '.',
      ])
      const { result, rootfs } = await unpack(await readFile(archive))
      assert.ok(!(result instanceof Error), String(result))
      const { size, blocks } = await stat(join(rootfs, 'holes'))
      assert.deepEqual([size, blocks], [64 * MiB, 0])
      if (format === 'gnu') continue
      const said = async (...argv: [string, ...string[]]) => (await host.run(argv)).stdout
      assert.match(await said('getcap', '-n', join(rootfs, 'ping')), /cap_net_raw=ep \[rootid=100000\]/)
      assert.match(await said('getfattr', '-d', '--absolute-names', join(rootfs, 'noted')), /user\.note="kept"/)
      assert.match(await said('getfacl', '-n', '-p', join(rootfs, 'shared')), /user:101234:rwx/)
    }
  })

  test('that names a way out of the root directory is refused', async () => {
    await refused([{ name: '../outside', content: 'x' }], 'invalid', /member '\.\.\/outside' leads out of the root/)
    await refused([{ name: 'a/../../outside', content: 'x' }], 'invalid', /leads out/)
    await refused([paxOf({ path: '../outside' }), { name: 'harmless', content: 'x' }], 'invalid', /leads out/)
    await refused([{ name: '-', type: 'L', content: '../outside\0' }, { name: 'x' }], 'invalid', /leads out/)
    const link: TarMember = { name: 'hard', type: '1', target: '../outside' }
    await refused([link, { name: 'hard', content: 'x' }], 'invalid', /'hard' is a hard link that leads out/)
  })

  test('that writes through links it made before writes nowhere else', async () => {
    const outside = join(home, String(made + 1))
    const ways: TarMember[][] = [
      [
        { name: 'way', type: '2', target: outside },
        { name: 'way/outside', content: 'x' },
      ],
      [
        { name: 'way', type: '2', target: '..' },
        { name: 'way/outside', content: 'x' },
      ],
      [
        { name: 'way', type: '2', target: '../outside' },
        { name: 'way', content: 'x' },
      ],
      [{ name: 'a', type: '2', target: '..' }, { name: 'b', type: '2', target: 'a/..' }, { name: 'b/outside' }],
      [
        { name: 'way', type: '2', target: '/usr/share' },
        { name: 'way/hako-was-here', content: 'x' },
      ],
      [
        { name: 'way', type: '2', target: '/proc/self/root' },
        { name: 'way/within', content: 'x' },
      ],
      [
        { name: outside, type: '5' },
        { name: `${outside}/outside`, content: 'x' },
      ],
      [
        { name: 'hard', type: '1', target: join(outside, 'outside') },
        { name: 'hard', content: 'x' },
      ],
    ]
    for (const members of ways) await unpack(tarOf(members))
    await assert.rejects(lstat('/usr/share/hako-was-here'), /ENOENT/)
  })

  test('has no devices: below /dev nothing comes out, elsewhere no device', async () => {
    const members: TarMember[] = [
      directory,
      { name: './dev/', type: '5', mode: 0o755 },
      { name: './dev/null', type: '3', device: [1, 3] },
      { name: './dev/shm/', type: '5' },
      { name: './disk', type: '4', device: [8, 0], mode: 0o666 },
      { name: './disk-too', type: '1', target: 'disk' },
      { name: './after', content: 'still comes' },
    ]
    const { result, rootfs } = await unpack(tarOf(members))
    assert.deepEqual(result, { entries: members.length, bytes: tarOf(members).length, leftOut: 4 })
    assert.deepEqual((await readdir(rootfs, { recursive: true })).toSorted(), ['after', 'dev'])
    const privileged = await unpack(tarOf(members), { idMap: undefined, keepsDevices: true })
    assert.ok((await lstat(join(privileged.rootfs, 'disk'))).isBlockDevice())
    assert.deepEqual(await readdir(join(privileged.rootfs, 'dev')), [])
  })

  test('whose files belong to ids outside of the map is refused, naming the id', async () => {
    await refused([{ name: 'x', uid: 65_536 }], 'invalid', /'x' belongs to uid 65536, which the id map/)
    await refused([paxOf({ gid: '4294967294' }), { name: 'x' }], 'invalid', /belongs to gid 4294967294/)
    await refused([paxOf({ uid: '-1' }), { name: 'x' }], 'damaged', /has no sound uid/)
  })

  test('that is cut off, damaged or none is called damaged', async () => {
    const tar = tarOf([{ name: 'a', content: Buffer.alloc(100_000, 1) }])
    const packed = zstdCompressSync(Buffer.concat([tar, Buffer.alloc(MiB, 'noise')]))
    const flipped = Buffer.from(packed)
    flipped[30] = 255 - (flipped[30] ?? 0)
    const bad: [string, string, Uint8Array][] = [
      ['cut in a member', '.tar', tar.subarray(0, 5_000)],
      ['without an end', '.tar', tar.subarray(0, -tarEnd.length)],
      ['cut where it is packed', '.tar.zst', packed.subarray(0, -10)],
      ['cut where it is packed', '.tar.gz', gzipSync(tar).subarray(0, -10)],
      ['changed', '.tar.zst', flipped],
      ['of another kind', '.tar.xz', gzipSync(tar)],
      ['no archive', '.tar', Buffer.alloc(MiB, 'no archive')],
      ['empty', '.tar', Buffer.alloc(0)],
      ['a size that is none', '.tar', tarOf([paxOf({ size: '1e3' }), { name: 'a' }])],
      ['a directory with content', '.tar', tarOf([{ name: 'a', type: '5', content: 'x' }])],
    ]
    for (const [what, end, content] of bad) {
      const { result } = await unpack(content, { end })
      assert.ok(isFault(result, 'damaged'), `${what}: ${String(result)}`)
    }
  })

  test('of ten million members stops at the most there may be', async () => {
    // Packed data may be several pieces, one after the other.
    const part = zstdCompressSync(Buffer.concat(Array.from({ length: 10_000 }, () => memberBytes({ name: 'again' }))))
    const content = Buffer.concat(Array.from({ length: 1_000 }, () => part))
    assert.ok(content.length < MiB)
    const { result, rootfs } = await unpack(content, { end: '.tar.zst', limits: { entries: 3_000 } })
    assert.ok(isFault(result, 'too-large'), String(result))
    assert.match(result.message, /more than 3000 entries/)
    // Whoever unpacks may be stopped before the first of them is there.
    for (const name of await readdir(rootfs)) assert.equal(name, 'again')
  })

  test('that grows beyond the most there may be stops there, also after its end', async () => {
    const limits = { bytes: 20 * MiB }
    const zeros = Buffer.alloc(64 * MiB)
    const bombs = [tarOf([{ name: 'bomb', content: zeros }]), Buffer.concat([tarOf([{ name: 'small' }]), zeros])]
    for (const bomb of bombs) {
      const { result, rootfs } = await unpack(zstdCompressSync(bomb), { end: '.tar.zst', limits })
      assert.ok(isFault(result, 'too-large'), String(result))
      const { stdout } = await host.run(['du', '--summarize', '--block-size=1K', rootfs])
      // The folder itself takes a block.
      assert.ok(Number.parseInt(stdout, 10) <= 20 * KiB + 16, stdout)
    }
  })

  test('takes no longer than it may, and ends when it is told to', async () => {
    const part = zstdCompressSync(Buffer.alloc(16 * MiB))
    const long = Buffer.concat(Array.from({ length: 200 }, () => part))
    const slow = Buffer.concat([zstdCompressSync(memberBytes({ name: 'long', sizeBytes: 3_200 * MiB })), long])
    const late = await unpack(slow, { end: '.tar.zst', limits: { timeoutMs: 100 } })
    assert.ok(isFault(late.result, 'timeout'), String(late.result))
    const stop = new AbortController()
    const onProgress = () => stop.abort(new Error('told to'))
    const told = await unpack(slow, { end: '.tar.zst', signal: stop.signal, onProgress })
    assert.match(String(told.result), /told to/)
  })

  test('leaves nobody at work when whoever unpacks it is killed', async (t) => {
    const part = zstdCompressSync(Buffer.alloc(16 * MiB))
    const head = zstdCompressSync(memberBytes({ name: 'long', sizeBytes: 8_000 * MiB }))
    const place = join(home, 'killed')
    const [archive, rootfs] = [join(place, 'slow.tar.zst'), join(place, 'rootfs')]
    await mkdir(rootfs, { recursive: true })
    await writeFile(archive, Buffer.concat([head, ...Array.from({ length: 500 }, () => part)]))
    const script = join(import.meta.dirname, '../../../test/fixtures/unpack-slowly.ts')
    const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script, archive, rootfs])
    t.after(() => child.kill('SIGKILL'))
    const atWork = async () =>
      (await host.run(['pgrep', '--full', '--', `--bind ${rootfs} `], { okCodes: [0, 1] })).stdout
    const hasBegun = async () => (await stat(join(rootfs, 'long')).catch(() => undefined)) !== undefined
    await waitFor(hasBegun, { what: 'the first of the archive', timeoutMs: 30_000 })
    assert.notEqual(await atWork(), '')
    child.kill('SIGKILL')
    await waitFor(async () => (await atWork()) === '', { what: 'the end of who unpacks', timeoutMs: 10_000 })
  })

  test('for which there is no room says so', async () => {
    const place = join(home, 'small')
    await mkdir(place)
    await host.run(['mount', '-t', 'tmpfs', '-o', 'size=2m,mode=755', 'hako-test', place])
    try {
      const archive = join(home, 'large.tar')
      await writeFile(archive, tarOf([{ name: 'large', content: Buffer.alloc(8 * MiB) }, { name: 'after' }]))
      const unpacked = unpackTemplate({ archive, rootfs: place, idMap })
      await assert.rejects(unpacked, (fault) => isFault(fault, 'exhausted'))
    } finally {
      await host.run(['umount', place])
    }
  })

  test('may have any name and depth: what is left of it can be removed', async () => {
    const long = 'd'.repeat(90)
    const deep = Array.from({ length: 40 }, (_, depth) => `${long}/`.repeat(depth + 1))
    const members = deep.flatMap((name) => [paxOf({ path: name }), { name: 'x', type: '5', mode: 0o755 }])
    // By a link to where it is deep already, it gets deeper than any path is long.
    const deeper = deep.flatMap((name) => [paxOf({ path: `far/${name}` }), { name: 'x', type: '5', mode: 0o755 }])
    const { result, rootfs } = await unpack(
      tarOf([
        ...members,
        paxOf({ linkpath: deep.at(-1) ?? '' }),
        { name: 'far', type: '2' },
        ...deeper,
        { name: 'line\nbreak\x1b[31m' },
        { name: 'locked', type: '5', mode: 0 },
      ]),
    )
    assert.ok(!(result instanceof Error), String(result))
    await assert.rejects(rm(rootfs, { recursive: true }), /ENAMETOOLONG/)
    await removeTree(host, rootfs)
    await removeTree(host, rootfs)
    await assert.rejects(lstat(rootfs), /ENOENT/)
  })
})
