/** The small parts of a tree in a backup, each by itself: what is written is what is read, and nothing else is. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseAttributes, encoded } from '#host/files/attribute-calls.ts'
import type { IdMap } from '#host/lxc/id-map.ts'
import { compareKeys } from './catalogue.ts'
import { compileExcludes } from './excludes.ts'
import { inward, outward, shiftAttributes } from './inside-ids.ts'
import { shortIdBytes } from '../format.ts'
import { Piece, PieceBuilder, pieceForm } from './piece.ts'
import { type ListEntry, parseList, printList } from './piece-list.ts'
import { below, type EntryRecord, folderAt, folderKey, identityBytes, readRecord, writeRecord } from './record.ts'

const nothing = Buffer.alloc(0)
const name = fc
  .uint8Array({ minLength: 1, maxLength: 20 })
  .map((bytes) => Buffer.from(bytes).toString('latin1').replaceAll(/[/\0]/g, 'x'))
  .filter((text) => text !== '.' && text !== '..')
const id = fc.integer({ min: 0, max: 2 ** 32 - 1 })

function identityOf(sizeBytes: number, rest: Uint8Array): Buffer {
  const identity = Buffer.alloc(identityBytes)
  identity.writeBigUInt64LE(BigInt(sizeBytes), 0)
  identity.set(rest, 8)
  return identity
}

/** A file with content in so many chunks. */
const file = (chunks: number) =>
  fc
    .record({
      gaps: fc.array(fc.tuple(fc.integer({ min: 0, max: 2 ** 40 }), fc.integer({ min: 1, max: 1_000 })), {
        maxLength: 5,
      }),
      rest: fc.uint8Array({ minLength: 32, maxLength: 32 }),
      attributes: fc.array(fc.tuple(name, fc.uint8Array({ maxLength: 30 })), { maxLength: 3 }),
      mode: fc.integer({ min: 0, max: 0o7777 }),
      uid: id,
      gid: id,
    })
    .map(({ gaps, rest, attributes, ...owner }): Omit<EntryRecord, 'name'> => {
      let end = 0
      const extents = gaps.map(([gap, length], number) => {
        const offset = end + gap
        end = offset + length
        return { offset, chunk: number % Math.max(1, chunks), skip: number * 7, length }
      })
      return {
        ...owner,
        kind: 'file',
        identity: identityOf(end, rest),
        target: '',
        attributes: Buffer.concat(attributes.map(([key, value]) => encoded({ name: key, value: Buffer.from(value) }))),
        extents: chunks === 0 ? [] : extents,
      }
    })
const link = fc
  .record({ target: name, rest: fc.uint8Array({ minLength: 32, maxLength: 32 }), uid: id, gid: id })
  .map(({ target, rest, ...owner }): Omit<EntryRecord, 'name'> => ({
    ...owner,
    kind: 'symbolic link',
    mode: 0o777,
    identity: identityOf(0, rest),
    target,
    attributes: nothing,
    extents: [],
  }))

/** Folders in order, each with entries in order. */
const folders = fc
  .dictionary(
    fc.array(name, { maxLength: 3 }).map((names) => names.join('/')),
    fc.array(fc.tuple(name, fc.oneof(file(3), link)), { minLength: 1, maxLength: 6 }),
    { maxKeys: 6, noNullPrototype: true },
  )
  .map((all) =>
    Object.entries(all)
      .toSorted(([one], [other]) => (folderKey(one) < folderKey(other) ? -1 : 1))
      .map(([path, entries]) => {
        const byName = new Map(entries.map(([key, record]) => [key, { ...record, name: key } as EntryRecord]))
        return { path, entries: [...byName.values()].toSorted((one, other) => (one.name < other.name ? -1 : 1)) }
      }),
  )

function pieceOf(of: readonly { path: string; entries: readonly EntryRecord[] }[]): Buffer {
  const builder = new PieceBuilder()
  for (let chunk = 0; chunk < 3; chunk += 1) {
    builder.addChunk(Buffer.alloc(shortIdBytes, chunk + 1))
  }
  for (const { path, entries } of of) {
    builder.addFolder(path)
    for (const entry of entries) builder.addRecord(entry)
  }
  return builder.take()
}

test('a piece of a catalogue is read as it was written', () => {
  fc.assert(
    fc.property(folders, (of) => {
      if (of.length === 0) return
      const piece = Piece.parse(pieceOf(of), pieceForm)
      const read: { path: string; entries: EntryRecord[] }[] = []
      for (const { kind, at } of piece.records()) {
        if (kind === 'folder') read.push({ path: folderAt(piece.bytes, at), entries: [] })
        else read.at(-1)?.entries.push(piece.record(at))
      }
      assert.deepEqual(read, of)
      assert.ok(piece.idOf(2).equals(Buffer.alloc(shortIdBytes, 3)))
    }),
  )
})

test('a changed byte of a piece is a fault, or a piece that keeps all rules, and never anything worse', () => {
  fc.assert(
    fc.property(folders, fc.nat(), fc.integer({ min: 1, max: 255 }), (of, place, change) => {
      if (of.length === 0) return
      const bytes = pieceOf(of)
      bytes[place % bytes.length] = (bytes[place % bytes.length] ?? 0) ^ change
      let piece: Piece
      try {
        piece = Piece.parse(bytes, pieceForm)
      } catch (error) {
        assert.ok(error instanceof Error && /^(?:it|a|an|the|its) /.test(error.message), String(error))
        return
      }
      for (const { kind, at } of piece.records()) {
        if (kind === 'folder') continue
        const { name: found, extents } = piece.record(at)
        assert.ok(!/[/\0]/.test(found) && found !== '.' && found !== '..')
        for (const { chunk, skip, length } of extents) assert.ok(chunk < piece.chunks && skip + length <= 262_144)
      }
    }),
    { numRuns: 500 },
  )
})

test('whatever would lead out of a folder, or is there twice, is no piece', () => {
  const entry = (more: Partial<EntryRecord>): EntryRecord => ({
    kind: 'file',
    name: 'x',
    mode: 0o644,
    uid: 0,
    gid: 0,
    target: '',
    attributes: nothing,
    extents: [],
    identity: Buffer.alloc(identityBytes),
    ...more,
  })
  const one = (more: Partial<EntryRecord>, path = '') => [{ path, entries: [entry(more)] }]
  const sized = identityOf(100, new Uint8Array())
  const extent = { offset: 0, chunk: 0, skip: 0, length: 10 }
  const hostile = [
    one({ name: '..' }),
    one({ name: '.' }),
    one({ name: 'a/b' }),
    one({ name: 'a\0b' }),
    one({ name: '' }),
    one({}, '..'),
    one({}, '/etc'),
    one({}, 'a//b'),
    one({}, 'a/../b'),
    one({ kind: 'hard link', target: '../outside' }),
    one({ kind: 'hard link', target: '/etc/passwd' }),
    one({ kind: 'hard link', target: '' }),
    one({ kind: 'symbolic link', target: '' }),
    one({ kind: 'symbolic link', target: 'a\0b' }),
    one({ kind: 'character device', target: '1' }),
    one({ kind: 'pipe', target: 'x' }),
    one({ mode: 0o10000 }),
    one({ kind: 'directory', identity: sized, extents: [extent] }),
    one({ extents: [extent] }),
    one({ identity: sized, extents: [{ ...extent, chunk: 3 }] }),
    one({ identity: sized, extents: [{ ...extent, skip: 262_144 }] }),
    one({ identity: sized, extents: [{ ...extent, length: 0 }] }),
    one({ identity: sized, extents: [extent, extent] }),
    one({ identity: sized, extents: [{ ...extent, offset: 2 ** 52 }] }),
    [{ path: '', entries: [entry({}), entry({})] }],
    [{ path: '', entries: [entry({ name: 'b' }), entry({ name: 'a' })] }],
    [...one({}, 'b'), ...one({}, 'a')],
    [...one({}, 'a'), ...one({}, 'a')],
    [{ path: '', entries: [entry({ name: 'a' }), entry({ kind: 'more', name: 'b' })] }],
  ]
  for (const [number, of] of hostile.entries()) {
    assert.throws(() => Piece.parse(pieceOf(of), pieceForm), Error, `number ${number} was let in`)
  }
  Piece.parse(pieceOf(one({ identity: sized, extents: [extent] })), pieceForm)
})

const listed = fc
  .array(fc.tuple(fc.array(name, { maxLength: 3 }), name, fc.nat(2 ** 40), fc.integer({ min: 1, max: 1_000 })), {
    minLength: 1,
    maxLength: 8,
  })
  .map((all) => {
    const entries = all.map(([names, last, offset, pieces], number): ListEntry => {
      const key = { folder: names.join('/'), name: last, offset }
      return { id: Buffer.alloc(shortIdBytes, number + 1), pieces, key }
    })
    const inOrder = entries.toSorted((one, other) => compareKeys(one.key, other.key))
    return inOrder.filter(({ key }, at) => compareKeys(inOrder[at - 1]?.key ?? { ...key, offset: -1 }, key) < 0)
  })

test('a list of pieces is read as it was written; one cut short is a fault, a changed byte one too or a list in order', () => {
  fc.assert(
    fc.property(listed, fc.nat(), fc.integer({ min: 1, max: 255 }), (entries, place, change) => {
      const bytes = printList(entries)
      assert.deepEqual(parseList(bytes), entries)
      for (let length = 0; length < bytes.length; length += 7) {
        assert.throws(() => parseList(bytes.subarray(0, length)), /^Error: it /)
      }
      bytes[place % bytes.length] = (bytes[place % bytes.length] ?? 0) ^ change
      try {
        const read = parseList(bytes)
        assert.ok(read.length > 0 && read.every(({ pieces }) => pieces > 0))
        for (const [at, { key }] of read.slice(1).entries()) assert.ok(compareKeys(read[at]?.key ?? key, key) < 0)
      } catch (error) {
        assert.ok(error instanceof Error && error.message.startsWith('it '), String(error))
      }
    }),
    { numRuns: 300 },
  )
})

test('a record is read as it was written, wherever it stands', () => {
  fc.assert(
    fc.property(file(3), name, fc.nat(100), (record, text, from) => {
      const bytes = Buffer.alloc(8_192)
      const written: EntryRecord = { ...record, name: text }
      const end = writeRecord(bytes, from, written)
      assert.equal(bytes.readUInt32LE(from), end - from)
      assert.deepEqual(readRecord(bytes, from), written)
    }),
  )
})

test('folders stand before what is in them, and that before the next beside them', () => {
  const paths = ['', 'a', 'a/b', 'a/b/c', 'a/c', 'a b', 'a-b', 'a.b', 'ab', 'b']
  assert.deepEqual(
    paths.toReversed().toSorted((one, other) => (folderKey(one) < folderKey(other) ? -1 : 1)),
    paths,
  )
  const keys = paths.flatMap((folder) => ['', 'x'].map((text) => ({ folder, name: text, offset: 0 })))
  assert.deepEqual(keys.toReversed().toSorted(compareKeys), keys)
  assert.equal(below('', 'a') + below('a', 'b'), 'aa/b')
})

test('attributes are read as they were written, and nothing else is', () => {
  const attribute = fc
    .tuple(name, fc.uint8Array({ maxLength: 100 }))
    .map(([key, bytes]) => ({ name: key, value: Buffer.from(bytes) }))
  fc.assert(
    fc.property(fc.array(attribute, { maxLength: 5 }), (attributes) => {
      assert.deepEqual(parseAttributes(Buffer.concat(attributes.map(encoded))), attributes)
    }),
  )
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => void parseAttributes(Buffer.from(bytes))))
  assert.equal(parseAttributes(Buffer.from([1, 255, 255, 255, 255, 97])), undefined)
  assert.equal(parseAttributes(Buffer.from([0, 0, 0, 0, 0])), undefined)
})

test('ids in attributes go in and come back out; those of others are nobody’s, and their capabilities go', () => {
  const map: IdMap = [
    { kind: 'uid', inside: 0, outside: 100_000, count: 65_536 },
    { kind: 'gid', inside: 0, outside: 200_000, count: 65_536 },
  ]
  const acl = (user: number, group: number) =>
    Buffer.from(
      new Uint32Array([2, 0x0006_0001, 2 ** 32 - 1, 0x0004_0002, user, 0x0004_0008, group, 0x0004_0020, 2 ** 32 - 1])
        .buffer,
    )
  const capability = (root?: number) =>
    Buffer.from(
      new Uint32Array([
        root === undefined ? 0x0200_0001 : 0x0300_0001,
        1,
        0,
        2,
        0,
        ...(root === undefined ? [] : [root]),
      ]).buffer,
    )
  const run = (list: Buffer, rights: Buffer) =>
    Buffer.concat([
      encoded({ name: 'security.capability', value: rights }),
      encoded({ name: 'system.posix_acl_access', value: list }),
      encoded({ name: 'user.x', value: Buffer.from('same') }),
    ])
  const shifts = [inward(map), outward(map)] as const
  for (const [outside, inside] of [
    [run(acl(101_000, 200_007), capability(100_000)), run(acl(1_000, 7), capability())],
    [run(acl(165_535, 200_000), capability(100_005)), run(acl(65_535, 0), capability(5))],
  ] as const) {
    assert.deepEqual(shiftAttributes(outside, shifts[0]), { value: inside, foreign: 0 })
    assert.deepEqual(shiftAttributes(inside, shifts[1]), { value: outside, foreign: 0 })
  }
  const { value, foreign } = shiftAttributes(run(acl(1_000, 200_007), capability()), shifts[0])
  const kept = parseAttributes(value) ?? []
  assert.deepEqual([foreign, kept.map((one) => one.name)], [2, ['system.posix_acl_access', 'user.x']])
  assert.deepEqual(kept[0]?.value, acl(65_534, 7))
})

test('patterns leave out what Proxmox VE leaves out', () => {
  const cases: [string, string[], string[]][] = [
    ['/tmp/?*', ['tmp/a', 'tmp/a/b', 'tmp/.x'], ['tmp', 'var/tmp/a', 'tmpfile']],
    ['/var/run/?*.pid', ['var/run/a.pid', 'var/run/a/b.pid'], ['var/run/.pid', 'run/a.pid', 'var/run/a.pids']],
    ['*.log', ['a.log', 'var/log/b.log', '.log'], ['a.logs', 'log']],
    ['cache', ['cache', 'a/cache', 'a/b/cache'], ['caches', 'mycache']],
    ['a/cache/', ['a/cache', 'x/a/cache'], ['cache', 'xa/cache']],
    ['/srv/[a-c]?', ['srv/a1', 'srv/c/'], ['srv/d1', 'srv/a']],
    ['[!x]z', ['az'], ['xz', 'z']],
    ['[]]', [']'], ['[']],
    ['a[b', ['a[b'], ['ab']],
    ['\\*', ['*'], ['a']],
    ['/\u00fc?', ['\u00fc\u00f6', '\u00fcx'], ['\u00fc', '\u00fcab']],
    ['', [], ['', 'a']],
    ['/', [], ['a']],
  ]
  const path = (text: string) => Buffer.from(text).toString('latin1')
  for (const [pattern, out, kept] of cases) {
    const isExcluded = compileExcludes([pattern]) ?? (() => false)
    for (const text of out) assert.ok(isExcluded(path(text)), `'${pattern}' should leave out '${text}'`)
    for (const text of kept) assert.ok(!isExcluded(path(text)), `'${pattern}' should keep '${text}'`)
  }
  // What would take others for ever.
  assert.equal(compileExcludes([`${'*a'.repeat(50)}b`])?.('a'.repeat(4_000)), false)
})
