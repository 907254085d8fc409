import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmod, mkdir, readFile, rename, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { promisify } from 'node:util'
import { GiB, MiB, TiB } from '#base/bytes.ts'
import type { Fault, FaultKind } from '#base/fault.ts'
import { asVmid, asVolumeId } from '#base/ids.ts'
import { smallStorage } from './small-storage.ts'

const run = promisify(execFile)
const vmid = asVmid(100)

const fault = (kind: FaultKind, about: RegExp) => (error: Fault) => {
  assert.equal(error.kind, kind, error.message)
  assert.match(`${error.message} ${JSON.stringify(error.fields ?? {})}`, about)
  return true
}

suite('disks of guests', () => {
  test('get the next free name, and concurrent ones get different names', async () => {
    await using lab = await smallStorage()
    const one = { storage: 'local', vmid, sizeBytes: MiB, format: 'raw' } as const
    const volids = await Promise.all(Array.from({ length: 8 }, () => lab.service.allocate(one)))
    const wanted = Array.from({ length: 8 }, (_, n) => `local:100/vm-100-disk-${n}.raw`)
    assert.deepEqual(volids.toSorted(), wanted)
    await lab.service.free(asVolumeId('local:100/vm-100-disk-3.raw'))
    assert.equal(await lab.service.allocate({ ...one, format: 'qcow2' }), 'local:100/vm-100-disk-3.qcow2')
  })

  test('can be named, once', async () => {
    await using lab = await smallStorage()
    const wish = { storage: 'local', vmid, sizeBytes: MiB, format: 'raw', name: 'vm-100-cloudinit' } as const
    assert.equal(await lab.service.allocate(wish), 'local:100/vm-100-cloudinit.raw')
    await assert.rejects(
      lab.service.allocate(wish),
      fault('conflict', /'local:100\/vm-100-cloudinit.raw' already exists/),
    )
  })

  test('have whole sectors, and sizes between a byte and 64 TiB', async () => {
    await using lab = await smallStorage()
    const one = { storage: 'local', vmid, format: 'raw', neededBytes: 0 } as const
    const volid = await lab.service.allocate({ ...one, sizeBytes: 1000 })
    assert.equal((await lab.service.describe(volid)).sizeBytes, 1024)
    for (const sizeBytes of [0, -1, 1.5, Number.NaN, 65 * TiB, Infinity]) {
      await assert.rejects(
        lab.service.allocate({ ...one, sizeBytes }),
        fault('invalid', /size.*a disk has from 1 byte/),
      )
    }
  })

  test('that do not fit are refused with the numbers and what to do', async () => {
    await using lab = await smallStorage()
    const { availableBytes } = await lab.service.status('local')
    const tooMuch = { storage: 'local', vmid, sizeBytes: availableBytes + 64 * GiB, format: 'qcow2' } as const
    await assert.rejects(lab.service.allocate(tooMuch), (error: Fault) => {
      assert.equal(error.kind, 'exhausted')
      assert.match(
        error.message,
        /^not enough space on storage 'local' for a disk of guest 100: .+iB needed, .+iB available$/,
      )
      assert.match(error.remedy ?? '', /^Free \d.+iB there, or choose another storage\.$/)
      return true
    })
    assert.deepEqual(await lab.look(), {})
    const known = await lab.service.allocate({ ...tooMuch, neededBytes: MiB })
    assert.equal((await lab.service.location(known)).sizeBytes, Math.ceil(tooMuch.sizeBytes / 512) * 512)
  })

  test('are freed by owner, whatever their names, and freeing again is no error', async () => {
    await using lab = await smallStorage()
    const { service } = lab
    for (const format of ['raw', 'qcow2'] as const)
      await service.allocate({ storage: 'local', vmid, sizeBytes: MiB, format })
    await service.allocate({ storage: 'local', vmid, sizeBytes: MiB, format: 'raw', name: 'vm-100-state' })
    const other = await service.allocate({ storage: 'local', vmid: asVmid(101), sizeBytes: MiB, format: 'raw' })
    await service.freeOwnedBy(vmid)
    await service.freeOwnedBy(vmid)
    assert.deepEqual(
      (await service.content('local')).map(({ volid }) => volid),
      [other],
    )
    await service.free(asVolumeId('local:100/vm-100-disk-0.raw'))
  })

  test('on a storage that is away are not silently taken for freed', async () => {
    await using lab = await smallStorage()
    await lab.service.create({ storage: 'away', type: 'dir', path: join(lab.folder, 'away'), content: 'images' })
    const here = await lab.service.allocate({ storage: 'local', vmid, sizeBytes: MiB, format: 'raw' })
    await rm(join(lab.folder, 'away'), { recursive: true })
    await assert.rejects(
      lab.service.freeOwnedBy(vmid),
      fault('failed', /may remain on away: storage 'away': the folder/),
    )
    await assert.rejects(lab.service.describe(here), /does not exist/)
    await lab.service.update('away', { set: { disable: true } })
    await lab.service.freeOwnedBy(vmid)
  })

  test('grow, and never shrink', async () => {
    await using lab = await smallStorage()
    for (const format of ['raw', 'qcow2'] as const) {
      const volid = await lab.service.allocate({ storage: 'local', vmid, sizeBytes: 2 * MiB, format })
      await lab.service.resize(volid, 4 * MiB)
      await lab.service.resize(volid, 4 * MiB)
      assert.equal((await lab.service.describe(volid)).sizeBytes, 4 * MiB)
      await assert.rejects(lab.service.resize(volid, MiB), fault('invalid', /shrinking disks is not supported/))
      await assert.rejects(lab.service.resize(volid, 60 * TiB), fault('exhausted', /the growth of volume/))
    }
  })

  test('belong to their guest while it runs', async () => {
    await using lab = await smallStorage()
    const volid = await lab.service.allocate({ storage: 'local', vmid, sizeBytes: MiB, format: 'raw' })
    await lab.service.giveTo(volid, 1_000_000_100)
    const { path } = await lab.service.location(volid)
    const { uid, gid, mode } = await stat(path)
    assert.deepEqual([uid, gid, mode & 0o777], [1_000_000_100, 1_000_000_100, 0o600])
  })

  test('into which a guest has written a reference to a host file are not opened, but can be freed', async () => {
    await using lab = await smallStorage()
    const volid = await lab.service.allocate({ storage: 'local', vmid, sizeBytes: MiB, format: 'qcow2' })
    const { path } = await lab.service.location(volid)
    await run('qemu-img', ['rebase', '-u', '-f', 'qcow2', '-b', '/etc/shadow', '-F', 'raw', path])
    await assert.rejects(lab.service.location(volid), fault('invalid', /refers to the backing file '\/etc\/shadow'/))
    await assert.rejects(lab.service.resize(volid, 2 * MiB), fault('invalid', /refers to the backing file/))
    await lab.service.free(volid)
    assert.deepEqual(await lab.look(), {})
  })
})

suite('importing an image', () => {
  test('copies it, in whatever format, and reports how far it is', async () => {
    await using lab = await smallStorage()
    const raw = join(lab.folder, 'source.raw')
    await run('dd', ['if=/dev/urandom', `of=${raw}`, 'bs=1M', 'count=4'])
    await truncate(raw, 16 * MiB)
    for (const from of ['raw', 'qcow2', 'vmdk'] as const) {
      const source = join(lab.folder, `source.${from}`)
      if (from !== 'raw') await run('qemu-img', ['convert', '-f', 'raw', '-O', from, raw, source])
      for (const format of ['raw', 'qcow2'] as const) {
        const reports: number[] = []
        const onProgress = (fraction: number) => void reports.push(fraction)
        const volid = await lab.service.importImage({ storage: 'local', vmid, source, format, onProgress })
        const { path, sizeBytes } = await lab.service.location(volid)
        assert.equal(sizeBytes, 16 * MiB)
        await run('qemu-img', ['compare', '-q', '-f', 'raw', '-F', format, raw, path])
        assert.equal(reports.at(-1), 1)
        const { usedBytes = Infinity } = await lab.service.describe(volid)
        assert.ok(usedBytes < 6 * MiB, `holes are kept: ${usedBytes} bytes used for 4 MiB of data`)
      }
    }
  })

  test('refuses every way of reading a file of the host', async () => {
    await using lab = await smallStorage()
    const hostile = async (name: string, ...args: readonly string[]) => {
      const source = join(lab.folder, name)
      await run('qemu-img', ['create', '-q', ...args, source, '1M'])
      await assert.rejects(
        lab.service.importImage({ storage: 'local', vmid, source, format: 'raw' }),
        fault('invalid', /refers to .*; only images that stand on their own are accepted/),
        name,
      )
    }
    await hostile('backing.qcow2', '-f', 'qcow2', '-u', '-b', '/etc/shadow', '-F', 'raw')
    await hostile(
      'json.qcow2',
      '-f',
      'qcow2',
      '-u',
      '-b',
      'json:{"driver":"file","filename":"/etc/shadow"}',
      '-F',
      'raw',
    )
    await hostile('data.qcow2', '-f', 'qcow2', '-o', `data_file=${lab.folder}/victim`)
    await hostile('flat.vmdk', '-f', 'vmdk', '-o', 'subformat=monolithicFlat')
    const backed = join(lab.folder, 'parent.vmdk')
    await run('qemu-img', ['create', '-q', '-f', 'vmdk', backed, '1M'])
    await hostile('child.vmdk', '-f', 'vmdk', '-b', backed, '-F', 'vmdk')
    assert.deepEqual(await lab.look(), {})
  })

  test('takes raw literally: a disguised image ends up as its bytes', async () => {
    await using lab = await smallStorage()
    const source = join(lab.folder, 'disguised.raw')
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-u', '-b', '/etc/shadow', '-F', 'raw', source, '1M'])
    const volid = await lab.service.importImage({ storage: 'local', vmid, source, format: 'raw' })
    const [bytes, copy] = [await readFile(source), await readFile((await lab.service.location(volid)).path)]
    assert.ok(copy.subarray(0, bytes.length).equals(bytes))
  })

  test('never guesses a format', async () => {
    await using lab = await smallStorage()
    const source = join(lab.folder, 'cloud.img')
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', source, '1M'])
    const wish = { storage: 'local', vmid, source, format: 'qcow2' } as const
    await assert.rejects(lab.service.importImage(wish), fault('invalid', /cannot be told from its name; give one of/))
    await lab.service.importImage({ ...wish, sourceFormat: 'qcow2' })
    await rename(source, join(lab.folder, 'wrong.vmdk'))
    const wrong = { ...wish, source: join(lab.folder, 'wrong.vmdk') }
    await assert.rejects(lab.service.importImage(wrong), fault('damaged', /is not a sparse vmdk image/))
  })

  test('that is interrupted leaves nothing', async () => {
    await using lab = await smallStorage()
    const source = join(lab.folder, 'large.raw')
    await run('dd', ['if=/dev/urandom', `of=${source}`, 'bs=1M', 'count=64'])
    const abort = new AbortController()
    const request = { storage: 'local', vmid, source, format: 'qcow2', signal: abort.signal } as const
    setImmediate(() => abort.abort())
    await assert.rejects(lab.service.importImage(request), fault('aborted', /interrupted/))
    assert.deepEqual(await lab.look(), {})
  })

  test('of what is not there says so', async () => {
    await using lab = await smallStorage()
    const wish = { storage: 'local', vmid, format: 'raw' } as const
    await assert.rejects(
      lab.service.importImage({ ...wish, source: '/nowhere/a.raw' }),
      fault('missing', /'\/nowhere\/a.raw' does not exist/),
    )
    await assert.rejects(
      lab.service.importImage({ ...wish, source: '/etc', sourceFormat: 'raw' }),
      fault('invalid', /neither file nor disk/),
    )
  })
})

suite('files', () => {
  const place = async (
    lab: Awaited<ReturnType<typeof smallStorage>>,
    fileName: string,
    text: string,
    more: object = {},
  ) => {
    const source = join(lab.folder, 'spooled')
    await writeFile(source, text)
    const file = { storage: 'local', content: 'snippets', fileName, source, mark: 'one', ...more } as const
    return lab.service.stageFile(file)
  }

  test('appear when they are published, under a plain name', async () => {
    await using lab = await smallStorage()
    await place(lab, '../my user data.yaml', 'text')
    assert.deepEqual(await lab.service.content('local'), [])
    const volid = asVolumeId('local:snippets/my_user_data.yaml')
    await lab.service.publishFile(volid, 'one')
    const { path, format, sizeBytes } = await lab.service.location(volid)
    assert.deepEqual([await readFile(path, 'utf8'), format, sizeBytes], ['text', 'snippet', 4])
    assert.equal((await stat(path)).mode & 0o777, 0o600, 'a snippet may hold a password')
  })

  test('with a wrong checksum never appear', async () => {
    await using lab = await smallStorage()
    const value = 'a'.repeat(64)
    const checksum = { algorithm: 'sha256', value } as const
    await assert.rejects(
      place(lab, 'a', 'text', { checksum }),
      fault('damaged', /checksum mismatch: got '982d9e3eb996f559.*' != expect 'aaa/),
    )
    const good = '982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1'
    await place(lab, 'a', 'text', { checksum: { algorithm: 'sha256', value: good.toUpperCase() } })
    await lab.service.discardStaged(asVolumeId('local:snippets/a'), 'one')
    assert.deepEqual(await lab.look(), {})
    for (const bad of ['', 'xyz', `${good}00`, 'g'.repeat(64)]) {
      await assert.rejects(
        place(lab, 'a', 'text', { checksum: { algorithm: 'sha256', value: bad } }),
        fault('invalid', /sha256 has 64 hexadecimal digits/),
      )
    }
  })

  test('with the wrong ending for their content are refused', async () => {
    await using lab = await smallStorage()
    for (const [content, fileName] of [
      ['iso', 'a.exe'],
      ['vztmpl', 'a.zip'],
      ['import', 'a.img'],
    ] as const) {
      await assert.rejects(place(lab, fileName, 'x', { content }), fault('invalid', /wrong file extension/))
    }
  })

  test('that are links are refused, whatever they lead to', async () => {
    await using lab = await smallStorage()
    const [soft, hard, pipe] = ['soft', 'hard', 'pipe'].map((name) => join(lab.folder, name)) as [
      string,
      string,
      string,
    ]
    await run('ln', ['-s', '/etc/shadow', soft])
    await writeFile(join(lab.folder, 'original'), 'x')
    await run('ln', [join(lab.folder, 'original'), hard])
    await run('mkfifo', [pipe])
    for (const [source, about] of [
      [soft, /is a symbolic link/],
      [hard, /not a regular file with one name/],
      [pipe, /not a regular file with one name/],
      ['/dev/zero', /not a regular file with one name/],
    ] as const) {
      const file = { storage: 'local', content: 'iso', fileName: 'a.iso', source, mark: 'one' } as const
      await assert.rejects(lab.service.stageFile(file), fault('denied', about))
    }
    assert.deepEqual(await lab.look(), {})
  })

  test('that are images to import are refused when they refer to files of the host', async () => {
    await using lab = await smallStorage()
    const source = join(lab.folder, 'hostile')
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-u', '-b', '/etc/shadow', '-F', 'raw', source, '1M'])
    const file = { storage: 'local', content: 'import', fileName: 'cloud.qcow2', source, mark: 'one' } as const
    await assert.rejects(lab.service.stageFile(file), fault('invalid', /refers to the backing file '\/etc\/shadow'/))
    await writeFile(source, 'no image at all')
    await assert.rejects(lab.service.stageFile(file), fault('damaged', /is not a qcow2 image/))
    assert.deepEqual(await lab.look(), {})
  })
})

suite('a storage', () => {
  test('that is disabled, elsewhere or unknown says which', async () => {
    await using lab = await smallStorage()
    const { service, folder } = lab
    await service.create({ storage: 'off', type: 'dir', path: join(folder, 'off'), disable: true })
    await service.create({ storage: 'far', type: 'dir', path: join(folder, 'far'), nodes: 'other' })
    await assert.rejects(service.content('off'), fault('unavailable', /^storage 'off' is disabled/))
    await assert.rejects(service.content('far'), fault('unavailable', /^storage 'far' is not available on node 'lab'/))
    await assert.rejects(service.content('none'), fault('missing', /^storage 'none' does not exist/))
    assert.deepEqual([(await service.status('off')).enabled, (await service.status('far')).active], [false, false])
    assert.deepEqual(
      (await lab.service.list()).map(({ name }) => name),
      ['far', 'local', 'off'],
    )
  })

  test('that becomes enabled must be there, and one that is away can still be changed', async () => {
    await using lab = await smallStorage()
    const { service, folder } = lab
    const path = join(folder, 'late')
    await service.create({ storage: 'late', type: 'dir', path, content: 'images', disable: true })
    await writeFile(path, 'in the way')
    const enabling = service.update('late', { set: { disable: false } })
    await assert.rejects(enabling, fault('unavailable', /storage 'late': the folder '.*late' does not exist/))
    assert.equal((await service.get('late')).isDisabled, true)
    await rm(path)
    await service.update('late', { set: { disable: false } })
    assert.equal((await service.status('late')).active, true)
    await rm(path, { recursive: true })
    assert.deepEqual((await service.update('late', { set: { content: 'iso' } })).content, ['iso'])
  })

  test('whose folder is away is inactive, not an error', async () => {
    await using lab = await smallStorage()
    await rename(join(lab.folder, 'storage'), join(lab.folder, 'moved'))
    const { active, enabled, totalBytes } = await lab.service.status('local')
    assert.deepEqual([active, enabled, totalBytes], [false, true, 0])
  })

  test('holds only what it is configured to hold', async () => {
    await using lab = await smallStorage()
    await lab.service.update('local', { set: { content: 'iso' } })
    const disk = { storage: 'local', vmid, sizeBytes: MiB, format: 'raw' } as const
    await assert.rejects(
      lab.service.allocate(disk),
      fault('invalid', /storage 'local' does not support 'images' content/),
    )
    await assert.rejects(lab.service.datastorePath('local'), fault('invalid', /does not support 'backup' content/))
    await lab.service.requireContent('local', 'iso')
  })

  test('keeps its datastore inside its own folder', async () => {
    await using lab = await smallStorage()
    assert.equal(await lab.service.datastorePath('local'), join(lab.folder, 'storage', 'datastore'))
  })

  test('is swept of what killed processes left, and of nothing else', async () => {
    await using lab = await smallStorage()
    const folder = join(lab.folder, 'storage', 'images', '100')
    await mkdir(folder, { recursive: true })
    await writeFile(join(folder, '.new-4194304-1-1.raw'), 'left by a process that is gone')
    await writeFile(join(folder, '.keep'), 'of the administrator')
    assert.equal(await lab.service.sweep(), 1)
    assert.deepEqual(Object.keys(await lab.look()), ['images/100/.keep'])
  })

  test('refuses to hand a disk to a guest that could not reach it', async () => {
    await using lab = await smallStorage()
    const volid = await lab.service.allocate({ storage: 'local', vmid, sizeBytes: MiB, format: 'raw' })
    await chmod(lab.folder, 0o700)
    await assert.rejects(
      lab.service.giveTo(volid, 1_000_000_100),
      fault('denied', /cannot be passed by a guest's user/),
    )
  })
})
