import assert from 'node:assert/strict'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { messageOf } from '#base/fault.ts'
import type { Fault } from '#base/fault.ts'
import { asVmid, asVolumeId, type VolumeId } from '#base/ids.ts'
import { smallStorage } from '#storage/small-storage.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import { deleteVolume } from './delete.ts'
import { uploadFile, type UploadFileDeps, type UploadParams, uploadRequest } from './upload.ts'

const task = {
  upid: 'UPID:lab:00000001:00000001:00000001:imgcopy::root@pam:',
  user: 'root@pam',
  node: 'lab',
  startTime: 1,
}
const backup = 'local:backup/vm/100/2026-11-20T10:00:00Z'
const disk = 'local:100/vm-100-disk-0.raw'
const iso = 'local:iso/a.iso'

const nothingCollected = {
  chunks: 0,
  liveChunks: 0,
  condemnedChunks: 0,
  removedChunks: 0,
  removedPacks: 0,
  rewrittenPacks: 0,
  freedBytes: 0,
}

/** Guest 100 with one disk, an ISO, and a list of restore points. */
async function world(options: Readonly<Record<string, string>> = {}) {
  const lab = await smallStorage('/dev/shm')
  const restorePoints = new Set<VolumeId>([asVolumeId(backup)])
  await lab.service.allocate({ storage: 'local', vmid: asVmid(100), sizeBytes: MiB, format: 'raw' })
  await put(lab, 'a.iso', 'old')
  const spooled = join(lab.folder, 'upload', 'claimed', 'upload-1')
  await mkdir(join(lab.folder, 'upload', 'claimed'), { recursive: true })
  await writeFile(spooled, 'new')
  const deps = {
    storage: lab.service,
    backup: {
      remove: async (volid: VolumeId) => void restorePoints.delete(volid),
      collect: async () => nothingCollected,
    },
    guests: { exists: async (vmid: number) => vmid === 100, config: async () => ({ options }) },
  }
  const look = async () => ({ files: await lab.look(), restorePoints: [...restorePoints] })
  return { lab, deps, look, spooled, [Symbol.asyncDispose]: () => lab[Symbol.asyncDispose]() }
}

async function put(lab: Awaited<ReturnType<typeof smallStorage>>, fileName: string, text: string): Promise<void> {
  const source = join(lab.folder, 'source')
  await writeFile(source, text)
  await lab.service.stageFile({ storage: 'local', content: 'iso', fileName, source, mark: 'setup' })
  await lab.service.publishFile(asVolumeId(`local:iso/${fileName}`), 'setup')
}

for (const volume of [disk, iso]) {
  suite(`deleting ${volume}`, () => {
    everyStepFails(deleteVolume, async () => ({ ...(await world()), params: { volume } }))
  })
}
for (const fileName of ['a.iso', 'b.iso']) {
  suite(`uploading ${fileName === 'a.iso' ? 'in place of an older file' : 'a new file'}`, () => {
    everyStepFails(uploadFile, async () => {
      const made = await world()
      const { service } = made.lab
      const storage: UploadFileDeps['storage'] = {
        list: () => service.list(),
        // Every run finds its upload; a run that was undone has taken it away.
        async stageFile(file) {
          await writeFile(made.spooled, 'new')
          return service.stageFile(file)
        },
        publishFile: (volid, mark) => service.publishFile(volid, mark),
        withdrawFile: (volid, mark, identity) => service.withdrawFile(volid, mark, identity),
        discardStaged: (volid, mark) => service.discardStaged(volid, mark),
        erase: (volid, mark) => service.erase(volid, mark),
        sweep: () => service.sweep(),
      }
      const params = { storage: 'local', content: 'iso', fileName, spooled: made.spooled } as const
      return { ...made, deps: { storage }, params }
    })
  })
}

suite('deleting a volume', () => {
  const run = async (made: Awaited<ReturnType<typeof world>>, volume: string) =>
    perform(deleteVolume, { volume }, made.deps, memoryJournal(), { task })

  test('removes a disk with its guest’s emptied folder, a file, and a restore point', async () => {
    await using made = await world()
    for (const volume of [disk, iso, backup]) await run(made, volume)
    assert.deepEqual(await made.look(), { files: {}, restorePoints: [] })
  })

  test('spares a disk its guest still has, and says how to detach it', async () => {
    for (const text of [`${disk},size=1M`, `file=${disk},size=1M`, disk]) {
      await using made = await world({ name: 'web', scsi0: text })
      const before = await made.look()
      await assert.rejects(run(made, disk), (fault: Fault) => {
        assert.equal(fault.kind, 'conflict')
        assert.equal(fault.message, `cannot remove volume '${disk}': it is scsi0 of guest 100`)
        assert.equal(fault.remedy, 'Detach it first: `hako vm set 100 --delete scsi0`.')
        return true
      })
      assert.deepEqual(await made.look(), before)
    }
  })

  test('that does not exist fails', async () => {
    await using made = await world()
    await assert.rejects(run(made, 'local:iso/none.iso'), /volume 'local:iso\/none.iso' does not exist/)
  })

  test('locks the guest of a disk, or the volume', () => {
    const locks = (volume: string) => deleteVolume.facts.locks?.({ volume })
    assert.deepEqual([locks(disk), locks(iso), locks(backup)], [['guest/100'], [`volume/${iso}`], [`volume/${backup}`]])
    const id = (volume: string) => deleteVolume.facts.id?.({ volume })
    assert.deepEqual([id(disk), id(iso), id(backup)], ['100@local', 'local', '100@local'])
  })
})

suite('an upload', () => {
  test('takes its spooled file away, whether it succeeds or fails', async () => {
    for (const storage of ['local', 'gone']) {
      await using made = await world()
      const params = { storage, content: 'iso', fileName: 'b.iso', spooled: made.spooled } as const
      const outcome = await perform(uploadFile, params, made.deps, memoryJournal(), { task }).then(
        () => 'ok',
        messageOf,
      )
      assert.match(outcome, storage === 'local' ? /^ok$/ : /storage 'gone' does not exist/)
      await assert.rejects(readFile(made.spooled), /ENOENT/)
    }
  })

  test('with a wrong checksum fails and changes nothing', async () => {
    await using made = await world()
    const before = await made.look()
    const checksum = { algorithm: 'md5', value: 'd41d8cd98f00b204e9800998ecf8427e' } as const
    const params = { storage: 'local', content: 'iso', fileName: 'a.iso', spooled: made.spooled, checksum } as const
    await assert.rejects(perform(uploadFile, params, made.deps, memoryJournal(), { task }), /checksum mismatch/)
    assert.deepEqual(await made.look(), before)
  })

  const request = async (made: Awaited<ReturnType<typeof world>>, change: Partial<UploadParams>) =>
    uploadRequest(
      { settings: { stateDir: made.lab.folder }, storage: made.deps.storage },
      { storage: 'local', content: 'iso', filename: 'b.iso', tmpfilename: made.spooled, ...change },
    )

  test('is planned from what the client sent', async () => {
    await using made = await world()
    const value = 'D41D8CD98F00B204E9800998ECF8427E'
    assert.deepEqual(await request(made, { filename: 'my file.iso', checksum: value, 'checksum-algorithm': 'md5' }), {
      storage: 'local',
      content: 'iso',
      fileName: 'my_file.iso',
      spooled: made.spooled,
      checksum: { algorithm: 'md5', value },
    })
  })

  test('that cannot succeed is refused at once, and its spooled file goes', async () => {
    const bad: readonly [Partial<UploadParams>, string][] = [
      [{ filename: 'b.exe' }, 'filename'],
      [{ content: 'vztmpl' }, 'filename'],
      [{ checksum: 'abc', 'checksum-algorithm': 'sha256' }, 'checksum'],
    ]
    for (const [change, field] of bad) {
      await using made = await world()
      await assert.rejects(request(made, change), (fault: Fault) => {
        assert.deepEqual(Object.keys(fault.fields ?? {}), [field])
        return true
      })
      await assert.rejects(readFile(made.spooled), /ENOENT/)
    }
  })

  test('cannot name a file of the host as its upload', async () => {
    await using made = await world()
    const { folder } = made.lab
    for (const tmpfilename of [
      '/etc/shadow',
      `${folder}/upload/claimed/../../storage/template/iso/a.iso`,
      `${folder}/upload/claimed/x/../../../../../etc/shadow`,
      `${folder}/upload/incoming/upload-1`,
      `${folder}/upload/claimed`,
      'upload-1',
    ]) {
      await assert.rejects(request(made, { tmpfilename }), (fault: Fault) => {
        assert.deepEqual(fault.fields, { tmpfilename: 'value is not a spooled upload' })
        return true
      })
    }
    await assert.rejects(request(made, { tmpfilename: undefined }), /Parameter verification failed/)
    assert.equal(await readFile(made.spooled, 'utf8'), 'new')
  })
})
