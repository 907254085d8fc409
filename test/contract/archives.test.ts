/** Archives of other platforms and the parameters of backups, as clients meet them: through the public port. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { zstdCompressSync } from 'node:zlib'
import { MiB } from '#base/bytes.ts'
import type { Fault } from '#base/fault.ts'
import { nodeUnderTest, type TestNode } from '../node-under-test.ts'
import { vmaArchive } from '../fixtures/vma-writer.ts'
import { type Ask, form, logIn, proofOf, publicPort } from './public-port.ts'

const node = '/nodes/testnode'
const name = 'vzdump-qemu-300-2026_01_31-12_00_00.vma.zst'
const volid = `local:backup/${name}`
const conf = 'memory: 64\nname: moved\nscsi0: local-lvm:vm-300-disk-0,size=2M\nfrobnicate: 1\nvirtiofs0: secret\n'
const user = { userid: 'joe@pve', password: 'correct horse battery' }
const closing = new AsyncDisposableStack()
let lab: TestNode
let asJoe: Ask
let path: string

before(async () => {
  lab = closing.use(await nodeUnderTest())
  const folder = join(lab.settings.stateDir, 'storage/local/dump')
  await mkdir(folder, { recursive: true })
  path = join(folder, name)
  const devices = { 'drive-scsi0': randomBytes(2 * MiB) }
  await writeFile(path, zstdCompressSync(vmaArchive({ configs: { 'qemu-server.conf': conf }, devices })))
  await writeFile(`${path}.notes`, 'from the old cluster\n')
  await lab.api('POST', '/access/users', user)
  // Everything an owner of guests may have, and still not root.
  await lab.api('PUT', '/access/acl', { path: '/', users: user.userid, roles: 'PVEAdmin' })
  const base = `${lab.url}/api2/json`
  asJoe = publicPort(base, proofOf(await logIn(base, user.userid, user.password)))
})
after(() => closing.disposeAsync())

describe('an archive that was copied into a storage', () => {
  test('is in its content, with what is known of it', async () => {
    const { data } = await asJoe(`${node}/storage/local/content?content=backup&vmid=300`)
    const [item, ...rest] = data as Record<string, unknown>[]
    assert.deepEqual(rest, [])
    const { size, used, ...facts } = item ?? {}
    assert.ok(Number(size) > MiB && Number(used) > 0)
    const ctime = new Date(2026, 0, 31, 12).getTime() / 1000
    assert.deepEqual(facts, {
      volid,
      content: 'backup',
      format: 'vma.zst',
      vmid: 300,
      ctime,
      notes: 'from the old cluster',
      subtype: 'qemu',
    })
  })

  test('shows the configuration in it', async () => {
    const { data } = await asJoe(`${node}/vzdump/extractconfig?volume=${encodeURIComponent(volid)}`)
    assert.equal(data, conf)
  })

  test('is restored under another number, and the task says what was lost', async () => {
    const sent = await asJoe(`${node}/qemu`, ...form({ vmid: '301', archive: volid, storage: 'local', unique: '1' }))
    const { log } = await lab.task(sent.data, /^WARNINGS: 2$/)
    assert.match(log, /WARN: frobnicate is left out: this release has no such option/)
    assert.match(log, /WARN: virtiofs0 is left out: set it again, if you may use its mapping/)
    const { data } = await asJoe(`${node}/qemu/301/config`)
    const { name: called, memory, scsi0 } = data as Record<string, string>
    assert.deepEqual([called, memory], ['moved', '64'])
    assert.match(scsi0 ?? '', /^local:301\/vm-301-disk-0\.\w+,size=2M$/)
  })

  test('is restored from a path by root, and by nobody else', async () => {
    const refused = await asJoe(`${node}/qemu`, ...form({ vmid: '302', archive: path, storage: 'local' }))
    assert.equal(refused.status, 403, refused.body)
    await lab.task(
      await lab.api('POST', `${node}/qemu`, { vmid: '302', archive: path, storage: 'local' }),
      /^WARNINGS: 1$/,
    )
  })

  test('is refused where more is asked of it than it gives', async () => {
    const asks: readonly [string, Record<string, string>, RegExp][] = [
      [`${node}/qemu`, { vmid: '303', archive: volid, 'live-restore': '1' }, /"live-restore"/],
      [`${node}/qemu`, { vmid: '303', archive: volid, scsi5: 'local:1' }, /"scsi5":"a restored guest has the disks/],
      [`${node}/qemu`, { vmid: '303', archive: '-' }, /"volume"/],
      ['/hako/drills', { archive: volid }, /"archive":".* archive of another platform/],
    ]
    for (const [where, params, says] of asks) {
      const answer = await asJoe(where, ...form(params))
      assert.equal(answer.status, 400, answer.body)
      assert.match(answer.body, says)
    }
  })

  test('is verified, protected, and removed with its notes', async () => {
    await lab.task((await asJoe('/hako/verify/backup', ...form({ volume: volid }))).data)
    const change = async (value: string) =>
      lab.api('PUT', `${node}/storage/local/content/${volid}`, { protected: value })
    await change('1')
    await lab.task(await lab.api('DELETE', `${node}/storage/local/content/${volid}`), /it is protected/)
    await change('0')
    await lab.task(await lab.api('DELETE', `${node}/storage/local/content/${volid}`))
    const { data } = await asJoe(`${node}/storage/local/content?content=backup`)
    assert.deepEqual(data, [])
  })
})

describe('a backup', () => {
  test('runs a script for root alone', async () => {
    for (const option of ['script', 'tmpdir', 'dumpdir']) {
      const answer = await asJoe(`${node}/vzdump`, ...form({ vmid: '301', storage: 'local', [option]: '/root/x' }))
      assert.equal(answer.status, 400)
      assert.match(answer.body, new RegExp(`"${option}":"Only root may set this option\\."`))
    }
    const job = { schedule: 'daily', vmid: '301', storage: 'local', script: 'x' }
    await assert.rejects(lab.api('POST', '/cluster/backup', job), (fault: Fault) => {
      assert.match(fault.fields?.script ?? '', /name a file of this node by its absolute path/)
      return true
    })
  })

  test('ends in the words clients know when one guest of several fails', async () => {
    const upid = await lab.api('POST', `${node}/vzdump`, {
      vmid: '301,999',
      storage: 'local',
      compress: 'gzip',
      ionice: '5',
    })
    const { log } = await lab.task(upid, /^job errors$/)
    assert.match(log, /INFO: compress has no effect: /)
    assert.match(log, /INFO: Finished Backup of VM 301 \(\d\d:\d\d:\d\d\)/)
    assert.match(log, /ERROR: Backup of VM 999 failed - .*does not exist/)
    assert.match(log, /TASK ERROR: job errors$/)
  })

  test('has defaults whoever may use the storage can ask for', async () => {
    const { data } = await asJoe(`${node}/vzdump/defaults?storage=local`)
    const { mode, ionice, stopwait, lockwait } = data as Record<string, unknown>
    assert.deepEqual([mode, ionice, stopwait, lockwait], ['snapshot', 7, 10, 180])
  })
})
