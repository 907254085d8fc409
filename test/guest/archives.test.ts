/** Guests brought from elsewhere as `vma` archives, onto real disks, and started. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdir, readdir, readFile, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { suite, test } from 'node:test'
import { constants, createZstdCompress, gzipSync, zstdCompressSync } from 'node:zlib'
import { KiB, MiB } from '#base/bytes.ts'
import { systemClock, waitFor } from '#base/clock.ts'
import { type Fault, isFault, messageOf } from '#base/fault.ts'
import { asVolumeId } from '#base/ids.ts'
import { systemRandom } from '#base/random.ts'
import { archiveOf } from '#backup/archive.ts'
import { machine } from '#host/exec.ts'
import { verifyBackups } from '#operations/backup/verify.ts'
import { type RestoreGuest, restoreGuest } from '#operations/guest/restore.ts'
import { snapshotGuest } from '#operations/guest/snapshot.ts'
import { templateGuest } from '#operations/guest/template.ts'
import { deleteVolume } from '#operations/storage/delete.ts'
import { annotateBackup } from '#operations/storage/annotate.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import { buttonDisk, buttonSays } from '../fixtures/guests/power-button.ts'
import { vmaArchive } from '../fixtures/vma-writer.ts'
import { addDisk, type BackupWorld, backupWorld, contentOf, task } from './backup-world.ts'

const host = machine()
const folderOf = (world: BackupWorld) => join(world.settings.stateDir, 'vault/dump')
const stamp = '2026_01_31-12_00_00'

const conf = `#moved%21
#qmdump#map:virtio0:drive-virtio0:local:raw:
#qmdump#map:scsi1:drive-scsi1:elsewhere:qcow2:
balloon: 0
boot: order=virtio0
frobnicate: yes
memory: 16
name: moved
parent: before
scsi1: elsewhere:100/vm-100-disk-1.qcow2,size=3M
serial0: socket
vga: none
virtio0: local:100/vm-100-disk-0.raw,size=4M
[before]
memory: 8
`

/** Two disks of random data, one of which boots. */
function devices() {
  const scsi1 = Buffer.concat([
    randomBytes(700 * KiB),
    Buffer.alloc(2 * MiB),
    randomBytes(300 * KiB),
    Buffer.alloc(512),
  ])
  return { 'drive-virtio0': buttonDisk(), 'drive-scsi1': scsi1.subarray(0, scsi1.length - (scsi1.length % 512)) }
}

async function put(world: BackupWorld, ending: string, content: Buffer): Promise<{ volid: string; path: string }> {
  await mkdir(folderOf(world), { recursive: true })
  const name = `vzdump-qemu-100-${stamp}.vma${ending}`
  await writeFile(join(folderOf(world), name), content)
  return { volid: `vault:backup/${name}`, path: join(folderOf(world), name) }
}

async function restore(world: BackupWorld, params: RestoreGuest) {
  const said = { log: [] as string[], warn: [] as string[] }
  await perform(restoreGuest, params, world.deps, memoryJournal(), {
    task,
    log: (line) => void said.log.push(line),
    warn: (line) => void said.warn.push(line),
  })
  return { log: said.log.join('\n'), warn: said.warn.join('\n') }
}

suite('an archive of another platform', { timeout: 300_000 }, () => {
  test('becomes a guest that boots, with its disks bit for bit and every loss told', async () => {
    await using world = await backupWorld()
    const content = devices()
    const { volid } = await put(
      world,
      '.zst',
      zstdCompressSync(vmaArchive({ configs: { 'qemu-server.conf': conf }, devices: content })),
    )
    const { log, warn } = await restore(world, { vmid: 200, archive: volid, storage: 'local', start: true })
    const vmid = world.id(200)
    const { options } = await world.guests.config(vmid)
    assert.equal(options.name, 'moved')
    assert.equal(options.description, 'moved!')
    assert.match(options.virtio0 ?? '', /^local:200\/vm-200-disk-0\.raw,.*size=4M/)
    assert.match(options.scsi1 ?? '', /^local:200\/vm-200-disk-1\.qcow2/)
    assert.match(warn, /frobnicate is left out/)
    assert.match(log, /snapshots .*: before/)
    const serial = join(world.guests.runDirOf(vmid), 'serial.log')
    await waitFor(async () => (await readFile(serial, 'utf8').catch(() => '')).includes(buttonSays), {
      what: 'the restored guest to boot from its disk',
      timeoutMs: 60_000,
    })
    await world.guests.shutdown(vmid, { timeoutMs: 60_000 })
    for (const [drive, device] of [
      ['virtio0', 'drive-virtio0'],
      ['scsi1', 'drive-scsi1'],
    ] as const) {
      const found = await contentOf(world, vmid, drive)
      assert.ok(found.subarray(0, content[device].length).equals(content[device]), drive)
    }
  })

  test('is read however it is packed, from a storage or from a path', async () => {
    await using world = await backupWorld()
    const content = devices()
    const plain = vmaArchive({ configs: { 'qemu-server.conf': conf }, devices: content })
    const checked = { params: { [constants.ZSTD_c_checksumFlag]: 1 } }
    const packed: Record<string, Buffer> = {
      '': plain,
      '.gz': gzipSync(plain),
      '.zst': zstdCompressSync(plain, checked),
    }
    const raw = join(world.settings.stateDir, 'plain.vma')
    await writeFile(raw, plain)
    await host.run(['lzop', '-o', `${raw}.lzo`, raw])
    packed['.lzo'] = await readFile(`${raw}.lzo`)
    let next = 300
    for (const [ending, bytes] of Object.entries(packed)) {
      const { volid, path } = await put(world, ending, bytes)
      for (const archive of [volid, path]) {
        await restore(world, { vmid: next, archive, storage: 'local' })
        const found = await contentOf(world, world.id(next), 'scsi1')
        assert.ok(found.subarray(0, content['drive-scsi1'].length).equals(content['drive-scsi1']), archive)
        next += 1
      }
      await perform(verifyBackups, { volume: volid }, world.deps, memoryJournal(), { task })
    }
  })

  test('is what a backup can be taken elsewhere as, and comes back the same', async () => {
    await using world = await backupWorld()
    const content = devices()
    const { volid } = await put(world, '', vmaArchive({ configs: { 'qemu-server.conf': conf }, devices: content }))
    await restore(world, { vmid: 200, archive: volid, storage: 'local' })
    const [backup] = await world.run({ vmids: [200] })
    assert.ok(backup)
    const path = join(world.settings.stateDir, 'exported.vma.zst')
    {
      await using reader = await world.backup.open(backup)
      const { bytes } = await archiveOf(reader, systemRandom)
      await pipeline(Readable.from(bytes), createZstdCompress(), createWriteStream(path))
    }
    await restore(world, { vmid: 201, archive: path, storage: 'local' })
    const { options } = await world.guests.config(world.id(201))
    assert.deepEqual([options.name, options.description, options.memory], ['moved', 'moved!', '16'])
    for (const [drive, device] of [
      ['virtio0', 'drive-virtio0'],
      ['scsi1', 'drive-scsi1'],
    ] as const) {
      const found = await contentOf(world, world.id(201), drive)
      assert.ok(found.subarray(0, content[device].length).equals(content[device]), drive)
    }
  })

  test('that cannot be restored leaves nothing, and says why', async () => {
    await using world = await backupWorld()
    const whole = vmaArchive({ configs: { 'qemu-server.conf': conf }, devices: devices() })
    const before = await world.filesOfStorage()
    const flipped = Buffer.from(whole)
    flipped[whole.readUInt32BE(56) + 100] = (flipped[whole.readUInt32BE(56) + 100] ?? 0) ^ 4
    const bad: readonly [string, Buffer, Partial<RestoreGuest>, RegExp][] = [
      ['cut off', whole.subarray(0, whole.length - 5000), { storage: 'local' }, /it ends within extent/],
      ['cut off at an edge', whole.subarray(0, whole.readUInt32BE(56)), { storage: 'local' }, /it ends early/],
      ['damaged', flipped, { storage: 'local' }, /extent 1 has a checksum/],
      ['no archive', Buffer.from('hello'), { storage: 'local' }, /this is no vma archive/],
      ['storage', whole, {}, /storage 'elsewhere' does not exist here, where disk scsi1 was/],
      ['no configuration', vmaArchive({ configs: {}, devices: devices() }), {}, /no configuration/],
    ]
    for (const [what, content, more, says] of bad) {
      const { volid } = await put(world, '', content)
      await assert.rejects(
        restore(world, { vmid: 200, archive: volid, ...more }),
        (fault: Fault) => says.test(fault.message),
        what,
      )
      assert.equal(await world.guests.exists(world.id(200)), false, what)
      assert.deepEqual(await world.filesOfStorage(), before, what)
    }
    const verified = await perform(
      verifyBackups,
      { volume: `vault:backup/vzdump-qemu-100-${stamp}.vma` },
      world.deps,
      memoryJournal(),
      { task },
    ).then(() => 'whole', messageOf)
    assert.equal(verified, 'whole')
  })

  test('is slowed down to the limit it is given', async () => {
    await using world = await backupWorld()
    const content = { 'drive-virtio0': randomBytes(2 * MiB) }
    const { volid } = await put(world, '', vmaArchive({ configs: { 'qemu-server.conf': conf }, devices: content }))
    const startedMs = systemClock.monotonic()
    await restore(world, { vmid: 200, archive: volid, storage: 'local', bwlimit: 2048 })
    const tookMs = systemClock.monotonic() - startedMs
    assert.ok(tookMs > 900, `2 MiB at 2 MiB a second took ${tookMs} ms`)
  })

  test('is listed with its time, notes and protection, and goes with all that lies beside it', async () => {
    await using world = await backupWorld()
    const { volid, path } = await put(world, '.gz', gzipSync(vmaArchive({ configs: {}, devices: devices() })))
    await writeFile(`${path}.notes`, 'before the move\n')
    await writeFile(path.replace(/\.vma\.gz$/, '.log'), 'INFO: done\n')
    const listed = async () => (await world.storage.content('vault', { content: 'backup' }))[0]
    const first = await listed()
    assert.equal(first?.notes, 'before the move')
    assert.equal(first.vmid, 100)
    assert.equal(first.format, 'vma.gz')
    assert.equal(first.ctime, new Date(2026, 0, 31, 12).getTime() / 1000)
    await annotateBackup(world.deps, asVolumeId(volid), { protected: true, notes: 'keep' })
    assert.deepEqual([(await listed())?.protected, (await listed())?.notes], [true, 'keep'])
    const remove = () => perform(deleteVolume, { volume: volid }, world.deps, memoryJournal(), { task })
    await assert.rejects(remove(), /it is protected/)
    await annotateBackup(world.deps, asVolumeId(volid), { protected: false, notes: '' })
    await remove()
    assert.deepEqual(await readdir(folderOf(world)), [])
  })

  test('is refused as what it is not', async () => {
    await using world = await backupWorld()
    await mkdir(folderOf(world), { recursive: true })
    await writeFile(join(folderOf(world), `vzdump-lxc-101-${stamp}.tar.zst`), 'x')
    await truncate(join(folderOf(world), `vzdump-lxc-101-${stamp}.tar.zst`), 10)
    for (const archive of [
      `vault:backup/vzdump-lxc-101-${stamp}.tar.zst`,
      '/dev/zero.vma',
      '/etc/passwd',
      'local:iso/x.iso',
    ]) {
      await assert.rejects(restore(world, { vmid: 200, archive, storage: 'local' }), (fault) => isFault(fault), archive)
      assert.equal(await world.guests.exists(world.id(200)), false, archive)
    }
  })
})

test('a restore over a guest with snapshots takes their place, and a failing one leaves them whole', async () => {
  await using world = await backupWorld()
  const vmid = await world.define(100, {
    name: 'kept',
    virtio0: await addDisk(world, 100, 'qcow2', 4 * MiB),
    scsi0: await addDisk(world, 100, 'qcow2', 4 * MiB),
  })
  const [archive = ''] = await world.run({ vmids: [100] })
  // A disk the backup knows nothing of stays, without the snapshot in it.
  const extra = await addDisk(world, 100, 'qcow2', 4 * MiB)
  const withExtra = { ...(await world.guests.config(vmid)).options, sata0: extra }
  await world.guests.writeConfig(vmid, withExtra)
  await perform(snapshotGuest, { vmid: 100, name: 'before' }, world.deps, memoryJournal(), { task })
  const was = await world.guests.config(vmid)
  assert.deepEqual(Object.keys(was.snapshots ?? {}), ['before'])
  const files = await world.filesOfStorage()

  await assert.rejects(restore(world, { vmid: 100, archive, force: true, storage: 'nowhere' }), /does not exist/)
  await assert.rejects(restoreFailing(world, { vmid: 100, archive, force: true }), /injected/)
  assert.deepEqual((await world.guests.config(vmid)).snapshots, was.snapshots)
  assert.deepEqual((await world.guests.config(vmid)).options, was.options)
  assert.deepEqual(await world.filesOfStorage(), files)
  for (const volid of [extra, asVolumeId(was.options.scsi0?.split(',')[0] ?? '')]) {
    assert.deepEqual(await (await world.storage.snapshots(volid)).list(), ['before'])
  }

  const { log } = await restore(world, { vmid: 100, archive, force: true })
  assert.match(log, /snapshots of the guest as it was are removed: before/)
  const now = await world.guests.config(vmid)
  assert.equal(now.snapshots, undefined)
  assert.equal(now.options.parent, undefined)
  assert.equal(now.options.unused0, extra)
  assert.deepEqual(await (await world.storage.snapshots(extra)).list(), [])
  assert.equal((await world.filesOfStorage()).length, files.length)
})

test('a guest that is protected is not restored over', async () => {
  await using world = await backupWorld()
  await world.define(100, { scsi0: await addDisk(world, 100, 'raw', MiB), protection: '1' })
  const [archive = ''] = await world.run({ vmids: [100] })
  await assert.rejects(restore(world, { vmid: 100, archive, force: true }), /protection mode enabled/)
})

test('the backup of a template becomes a guest that can be started', async () => {
  await using world = await backupWorld()
  await world.define(100, { scsi0: await addDisk(world, 100, 'raw', MiB) })
  await perform(templateGuest, { vmid: 100 }, world.deps, memoryJournal(), { task })
  const [archive = ''] = await world.run({ vmids: [100] })
  const { warn } = await restore(world, { vmid: 101, archive })
  assert.match(warn, /was a template and is an ordinary guest now/)
  await world.guests.start(world.id(101))
})

/** The step before the start fails, when everything else is done. */
async function restoreFailing(world: BackupWorld, params: RestoreGuest): Promise<void> {
  const put = async () => Promise.reject(new Error('injected'))
  const pools = { poolOf: async () => undefined, put, takeOut: async () => {} }
  const deps = { ...world.deps, pools: pools as unknown as typeof world.deps.pools }
  await perform(restoreGuest, { ...params, pool: 'any' }, deps, memoryJournal(), { task })
}
