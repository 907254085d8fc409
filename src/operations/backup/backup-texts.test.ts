import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/fault.ts'
import { parseGuestConf, printGuestConf } from './guest-conf.ts'
import { disksToBackUp } from './guest-disks.ts'
import { treesToBackUp } from './guest-trees.ts'
import { checkNotesTemplate, notesFrom } from './notes-template.ts'
import { patternsBelow, patternsOf } from './tree-excludes.ts'
import { backupRequest } from './request.ts'

test('a stored configuration reads back as it was, whatever its values hold', () => {
  const name = fc.stringMatching(/^[a-zA-Z][a-zA-Z0-9_-]{0,12}$/)
  fc.assert(
    fc.property(fc.dictionary(name, fc.string({ unit: 'binary' })), (options) => {
      assert.deepEqual({ ...parseGuestConf(printGuestConf(options)) }, { ...options })
    }),
  )
  assert.deepEqual({ ...parseGuestConf('a: \u2028\n') }, { a: '\u2028' })
  assert.equal(printGuestConf({ name: 'web', description: '100 %\ntwo' }), 'description: 100 %25%0Atwo\nname: web\n')
  assert.throws(
    () => parseGuestConf('name web\n'),
    (error) => isFault(error, 'damaged'),
  )
  assert.throws(
    () => parseGuestConf('a: 1\na: 2\n'),
    (error) => isFault(error, 'damaged'),
  )
})

test('disks are backed up unless they are excluded; discs are not disks', () => {
  const { included, leftOut } = disksToBackUp({
    name: 'x',
    scsi0: 'local:100/vm-100-disk-0.raw,size=8G',
    scsi1: 'local:100/vm-100-disk-1.raw,backup=0',
    sata0: '/dev/sdx',
    ide2: 'local:iso/a.iso,media=cdrom',
  })
  assert.deepEqual(included, [{ drive: 'scsi0', volid: 'local:100/vm-100-disk-0.raw' }])
  assert.deepEqual(
    leftOut.map(({ drive, isSurprising }) => [drive, isSurprising]),
    [
      ['scsi1', false],
      ['sata0', true],
    ],
  )
})

test('of a container its root is backed up, and the mount points that ask for it', () => {
  const { included, leftOut } = treesToBackUp({
    rootfs: 'local:100/subvol-100-disk-0.subvol',
    mp0: 'local:100/vm-100-disk-1.raw,mp=/srv,backup=1,size=8G',
    mp1: 'local:100/vm-100-disk-2.raw,mp=/cache,size=8G',
    mp2: '/data,mp=/data,backup=1',
  })
  assert.deepEqual(
    included.map(({ name, path, volid }) => [name, path, volid]),
    [
      ['rootfs', '/', 'local:100/subvol-100-disk-0.subvol'],
      ['mp0', '/srv', 'local:100/vm-100-disk-1.raw'],
    ],
  )
  assert.deepEqual(leftOut, [
    { mount: 'mp1', path: '/cache', reason: 'disabled' },
    { mount: 'mp2', path: '/data', reason: 'not a volume' },
  ])
})

test('what is to be left out is told to each tree in its own terms', () => {
  const patterns = ['/srv/logs', '/srv', '/var/cache', '*.o', '/s*/x/y', '/']
  assert.deepEqual(patternsBelow('/', ['/srv/logs', '*.o', 'a/b']), ['/srv/logs', '*.o', 'a/b'])
  assert.deepEqual(patternsBelow('/srv', patterns), ['/logs', '/*', '*.o', '/x/y', '/*'])
  assert.deepEqual(patternsBelow('/srv/deep', ['/srv/other', '/srv', '/srv/deep/a']), ['/*', '/a'])
  assert.deepEqual(patternsOf({ storage: 'vault', mode: 'stop', excludePaths: ['/x'], excludesTemporary: false }), [
    '/x',
  ])
  assert.deepEqual(patternsOf({ storage: 'vault', mode: 'stop' })[0], '/tmp/?*')
})

test('notes come from a template', () => {
  const facts = { guestname: 'web', vmid: '100', node: 'one', cluster: '' }
  assert.equal(notesFrom('{{guestname}} ({{ vmid }})\\non {{node}} \\\\', facts), 'web (100)\non one \\')
  assert.throws(
    () => checkNotesTemplate('{{secret}}'),
    (error) => isFault(error, 'invalid'),
  )
})

test('a request names guests and what it cannot mean here', () => {
  assert.deepEqual(backupRequest({ vmid: '100,101', storage: 'vault' }).vmids, [100, 101])
  assert.equal(backupRequest({ vmid: '100' }).mode, 'snapshot')
  assert.equal(backupRequest({ vmid: '100', fleecing: 'enabled=1,storage=fast' }).fleecingStorage, 'fast')
  assert.deepEqual(backupRequest({ all: true, exclude: '900;901', 'prune-backups': 'keep-all=1' }).exclude, [900, 901])
  const fieldsOf = (params: Parameters<typeof backupRequest>[0]) => {
    try {
      backupRequest(params)
      return []
    } catch (error) {
      assert.ok(isFault(error, 'invalid'))
      return Object.keys(error.fields ?? {})
    }
  }
  assert.deepEqual(fieldsOf({}), ['vmid'])
  assert.deepEqual(fieldsOf({ vmid: '100', all: true }), ['all'])
  assert.deepEqual(fieldsOf({ vmid: '100', exclude: '101' }), ['exclude'])
  assert.deepEqual(fieldsOf({ vmid: '100', dumpdir: '/x' }), ['dumpdir'])
  assert.deepEqual(fieldsOf({ vmid: '100', 'prune-backups': 'keep-all=1,keep-last=3' }), ['prune-backups'])
  for (const script of ['hook.sh', '', 'local:snippets/x', '/x\n/y']) {
    assert.deepEqual(fieldsOf({ vmid: '100', script }), ['script'], script)
  }
  for (const mailto of [
    '-Xlog@x.org',
    'root',
    'a@b c',
    'a@-x',
    'a@b.org\nBcc:c@d.org',
    Array(51).fill('a@b.org').join(),
  ]) {
    assert.deepEqual(fieldsOf({ vmid: '100', mailto }).slice(0, 1), ['mailto'], mailto)
  }
  for (const path of ['', '/', '//etc', '/a/../b', './x', 'a\0']) {
    assert.deepEqual(fieldsOf({ vmid: '100', 'exclude-path': [path] }), ['exclude-path'], path)
  }
  assert.deepEqual(fieldsOf({ vmid: '100', fleecing: 'enabled=1,path=/x' }), ['fleecing'])
  assert.deepEqual(fieldsOf({ vmid: '100', 'notes-template': '{{nope}}' }), ['notes-template'])
})

test('what tunes a backup is taken, and what has no effect is told', () => {
  const request = backupRequest({
    vmid: '100',
    ionice: 8,
    performance: 'max-workers=200',
    mailto: 'ops@example.org;a.b+c@example.org',
    mailnotification: 'failure',
    'job-id': 'nightly',
    compress: 'lzo',
    pigz: 4,
    zstd: 1,
    stdexcludes: false,
    'exclude-path': ['/tmp', '*.o'],
    quiet: false,
  })
  assert.equal(request.ioPriority, 8)
  assert.equal(request.readsAhead, 32)
  assert.deepEqual([request.excludePaths, request.excludesTemporary], [['/tmp', '*.o'], false])
  assert.deepEqual(request.notify, { mailTo: ['ops@example.org', 'a.b+c@example.org'], on: 'failure' })
  assert.deepEqual(
    request.remarks?.map((line) => line.split(' ')[0]),
    ['compress', 'pigz'],
  )
  assert.deepEqual(backupRequest({ vmid: '100', compress: 'zstd' }).remarks, [])
})
