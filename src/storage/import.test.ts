import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { copyFile, mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { promisify } from 'node:util'
import { MiB } from '#base/bytes.ts'
import { asVmid, type VolumeId } from '#base/ids.ts'
import { metadataOf } from '#views/import-metadata.ts'
import { ovfText } from '../../test/fixtures/ovf.ts'
import { importPlaceOf } from './import.ts'
import { type SmallStorage, smallStorage } from './small-storage.ts'

const run = promisify(execFile)
const vmid = asVmid(100)

/** A raw image with some data in it. */
async function rawImage(lab: SmallStorage): Promise<string> {
  const path = join(lab.folder, 'source.raw')
  await run('dd', ['if=/dev/urandom', `of=${path}`, 'bs=1M', 'count=2'])
  await run('truncate', ['-s', '8M', path])
  return path
}

/** Puts files into `local`'s folder for imports, as an upload or the owner would. */
async function place(lab: SmallStorage, name: string, from: string): Promise<void> {
  const folder = join(lab.folder, 'storage/import')
  await mkdir(folder, { recursive: true })
  await rename(from, join(folder, name))
}

/** `appliance.ova` with these files in it. */
async function placeArchive(lab: SmallStorage, files: readonly string[], name = 'appliance.ova'): Promise<void> {
  const path = join(lab.folder, 'made.ova')
  await run('tar', ['--format=ustar', '-C', lab.folder, '-cf', path, ...files])
  await place(lab, name, path)
}

async function importFrom(lab: SmallStorage, source: string): Promise<VolumeId> {
  const { path, format: sourceFormat, part: sourcePart } = await importPlaceOf(lab.service, source)
  const from = { source: path, sourceFormat, sourcePart }
  return lab.service.importImage({ storage: 'local', vmid, ...from, format: 'qcow2' })
}

async function isCopyOf(lab: SmallStorage, volid: VolumeId, raw: string): Promise<void> {
  const { path } = await lab.service.location(volid)
  await run('qemu-img', ['compare', '-q', '-f', 'raw', '-F', 'qcow2', raw, path])
}

const fields = (expected: RegExp) => (fault: unknown) => {
  assert.match(JSON.stringify((fault as { fields?: object }).fields), expected)
  return true
}

suite('importing', () => {
  test('a disk inside an archive reads it there, in each of its formats', async () => {
    await using lab = await smallStorage()
    const raw = await rawImage(lab)
    const at = (name: string) => join(lab.folder, name)
    await run('qemu-img', ['convert', '-O', 'vmdk', '-o', 'subformat=streamOptimized', raw, at('web-disk1.vmdk')])
    await run('qemu-img', ['convert', '-O', 'qcow2', raw, at('web-disk2.qcow2')])
    await run('qemu-img', ['convert', '-O', 'vpc', '-o', 'force_size=on', raw, at('web-disk3.vhd')])
    await copyFile(raw, at('a disk (4).raw'))
    const disks = ['web-disk1.vmdk', 'web-disk2.qcow2', 'web-disk3.vhd', 'a disk (4).raw']
    await writeFile(at('web.ovf'), ovfText({ disks: disks.map((file) => ({ file, mib: 8 })) }))
    await placeArchive(lab, ['web.ovf', ...disks])
    const metadata = await metadataOf(lab.service, 'local:import/appliance.ova' as VolumeId)
    assert.deepEqual(metadata['create-args'], {
      name: 'web-server',
      cores: 2,
      memory: 192,
      ostype: 'l26',
      scsihw: 'pvscsi',
    })
    assert.deepEqual(metadata.disks, {
      scsi0: { volid: 'local:import/appliance.ova/web-disk1.vmdk', size: 8 * MiB },
      scsi1: { volid: 'local:import/appliance.ova/web-disk2.qcow2', size: 8 * MiB },
      scsi2: { volid: 'local:import/appliance.ova/web-disk3.vhd', size: 8 * MiB },
      scsi3: { volid: 'local:import/appliance.ova/a_disk__4_.raw', size: 8 * MiB },
    })
    for (const disk of Object.values(metadata.disks)) {
      await isCopyOf(lab, await importFrom(lab, (disk as { volid: string }).volid), raw)
    }
    // Nothing was unpacked.
    const files = Object.keys(await lab.look()).filter((file) => !file.startsWith('images/'))
    assert.deepEqual(files, ['import/appliance.ova'])
  })

  test('from a description beside its disks finds them by the names they were given', async () => {
    await using lab = await smallStorage()
    const raw = await rawImage(lab)
    await run('qemu-img', ['convert', '-O', 'vmdk', raw, join(lab.folder, 'x.vmdk')])
    await place(lab, 'my_disk.vmdk', join(lab.folder, 'x.vmdk'))
    await writeFile(join(lab.folder, 'x.ovf'), ovfText({ disks: [{ file: 'my%20disk.vmdk', mib: 8 }] }))
    await place(lab, 'web.ovf', join(lab.folder, 'x.ovf'))
    const { disks, warnings } = await metadataOf(lab.service, 'local:import/web.ovf' as VolumeId)
    assert.deepEqual([disks, warnings], [{ scsi0: { volid: 'local:import/my_disk.vmdk', size: 8 * MiB } }, []])
    await isCopyOf(lab, await importFrom(lab, 'local:import/my_disk.vmdk'), raw)
    await run('qemu-img', ['convert', '-O', 'vpc', '-o', 'force_size=on', raw, join(lab.folder, 'x.vhd')])
    await isCopyOf(lab, await importFrom(lab, join(lab.folder, 'x.vhd')), raw)
  })

  test('says what can be imported instead', async () => {
    await using lab = await smallStorage()
    await writeFile(join(lab.folder, 'one.raw'), 'x')
    await mkdir(join(lab.folder, 'deep'))
    await writeFile(join(lab.folder, 'deep/one.raw'), 'y')
    await writeFile(join(lab.folder, 'two.raw'), 'x')
    await placeArchive(lab, ['one.raw', 'deep/one.raw', 'two.raw'])
    const from = (source: string) => importFrom(lab, source)
    await assert.rejects(from('local:import/appliance.ova'), fields(/name a disk inside, .*appliance\.ova\/two\.raw/))
    await assert.rejects(from('local:import/appliance.ova/one.raw'), fields(/more than one disk called 'one\.raw'/))
    await assert.rejects(from('local:import/appliance.ova/three.raw'), /appliance\.ova\/three\.raw' does not exist/)
    await assert.rejects(from('local:import/gone.ova/one.raw'), /volume 'local:import\/gone\.ova' does not exist/)
    await assert.rejects(from('local:iso/a.iso'), fields(/neither a disk nor of content 'import'/))
    await assert.rejects(metadataOf(lab.service, 'local:import/appliance.ova' as VolumeId), /has 0 OVF descriptions/)
    await assert.rejects(
      metadataOf(lab.service, 'local:iso/a.iso' as VolumeId),
      fields(/neither an \.ova nor an \.ovf/),
    )
    // QEMU takes raw content literally, and fills up its last sector.
    const { sizeBytes } = await lab.service.describe(await from('local:import/appliance.ova/two.raw'))
    assert.equal(sizeBytes, 512)
  })

  test('refuses every way out of an archive into the host', async () => {
    await using lab = await smallStorage()
    const at = (name: string) => join(lab.folder, name)
    await writeFile(at('victim.raw'), Buffer.alloc(MiB, 'secret'))
    await run('qemu-img', [
      'create',
      '-q',
      '-f',
      'qcow2',
      '-u',
      '-b',
      at('victim.raw'),
      '-F',
      'raw',
      at('a.qcow2'),
      '1M',
    ])
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', `data_file=${at('data')}`, at('b.qcow2'), '1M'])
    await run('qemu-img', ['create', '-q', '-f', 'vmdk', '-o', 'subformat=monolithicFlat', at('c.vmdk'), '1M'])
    await run('qemu-img', ['create', '-q', '-f', 'vmdk', at('parent.vmdk'), '1M'])
    await run('qemu-img', ['create', '-q', '-f', 'vmdk', '-b', at('parent.vmdk'), '-F', 'vmdk', at('d.vmdk'), '1M'])
    await run('qemu-img', ['create', '-q', '-f', 'vpc', at('e.vhd'), '1M'])
    // A footer says what the image is; 4 is what differs from a parent.
    const foot = await readFile(at('e.vhd'))
    await using vhd = await open(at('e.vhd'), 'r+')
    for (const footer of [0, foot.length - 512]) await vhd.write(Buffer.from([0, 0, 0, 4]), 0, 4, footer + 60)
    const hostile = ['a.qcow2', 'b.qcow2', 'c.vmdk', 'd.vmdk', 'e.vhd']
    await placeArchive(lab, hostile)
    for (const name of hostile) {
      const expected = /refers to .*; only images that stand on their own are accepted/
      await assert.rejects(importFrom(lab, `local:import/appliance.ova/${name}`), expected, name)
      await assert.rejects(importFrom(lab, at(name)), expected, name)
    }
    await rm(at('c-flat.vmdk'))
    assert.deepEqual(Object.keys(await lab.look()), ['import/appliance.ova'])
  })
})
