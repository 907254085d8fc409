import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/fault.ts'
import { parseGuestConf, printGuestConf } from './guest-conf.ts'
import { disksToBackUp } from './guest-disks.ts'
import { checkNotesTemplate, notesFrom } from './notes-template.ts'
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
    stdexcludes: true,
    'exclude-path': ['/tmp'],
    quiet: false,
  })
  assert.equal(request.ioPriority, 8)
  assert.equal(request.readsAhead, 32)
  assert.deepEqual(request.notify, { mailTo: ['ops@example.org', 'a.b+c@example.org'], on: 'failure' })
  assert.deepEqual(
    request.remarks?.map((line) => line.split(' ')[0]),
    ['compress', 'pigz', 'exclude-path'],
  )
  assert.deepEqual(backupRequest({ vmid: '100', compress: 'zstd' }).remarks, [])
})
