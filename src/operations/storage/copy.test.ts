import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import type { Fault } from '#base/fault.ts'
import { asVmid, asVolumeId } from '#base/ids.ts'
import { machine } from '#host/exec.ts'
import { smallStorage } from '#storage/small-storage.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import { type CopyVolume, copyRequest, copyVolume } from './copy.ts'

const host = machine()
const task = { upid: 'UPID:lab:00000001:00000001:00000001:imgcopy:local:root@pam:', user: 'root@pam', node: 'lab' }
const disk = 'local:100/vm-100-disk-0.qcow2'
const iso = 'local:iso/a.iso'

/** Two storages; the first has a disk of guest 100 and an ISO. */
async function world() {
  const lab = await smallStorage('/dev/shm')
  const { service, folder } = lab
  await service.create({ storage: 'fast', type: 'dir', path: join(folder, 'storage/fast'), content: 'images,iso' })
  await service.allocate({ storage: 'local', vmid: asVmid(100), sizeBytes: MiB, format: 'qcow2' })
  const { path } = await service.location(asVolumeId(disk))
  await host.run(['qemu-io', '-f', 'qcow2', '-c', 'write -P 7 0 64k', path])
  const source = join(folder, 'source')
  await writeFile(source, 'an image')
  await service.stageFile({ storage: 'local', content: 'iso', fileName: 'a.iso', source, mark: 'setup' })
  await service.publishFile(asVolumeId(iso), 'setup')
  const deps = { storage: service }
  return { lab, deps, look: lab.look, [Symbol.asyncDispose]: () => lab[Symbol.asyncDispose]() }
}

const run = async (made: Awaited<ReturnType<typeof world>>, params: CopyVolume) =>
  perform(copyVolume, params, made.deps, memoryJournal(), { task: { ...task, startTime: 1 } })

for (const params of [
  { volume: disk, target: 'fast:101/vm-101-disk-3.raw' },
  { volume: iso, target: 'fast:iso/b.iso' },
]) {
  suite(`copying ${params.volume}`, () => {
    everyStepFails(copyVolume, async () => ({ ...(await world()), params }), { withCrashes: params.volume === iso })
  })
}

suite('a copy', () => {
  test('of a disk has its content, in the format its name says', async () => {
    await using made = await world()
    await run(made, { volume: disk, target: 'fast:101/vm-101-disk-3.raw' })
    const [from, to] = await Promise.all(
      [disk, 'fast:101/vm-101-disk-3.raw'].map((volid) => made.lab.service.location(asVolumeId(volid))),
    )
    assert.ok(from && to)
    await host.run(['qemu-img', 'compare', '-q', '-f', 'qcow2', '-F', 'raw', from.path, to.path])
  })

  test('never replaces anything', async () => {
    await using made = await world()
    await run(made, { volume: iso, target: 'fast:iso/b.iso' })
    const before = await made.look()
    for (const target of ['fast:iso/b.iso', iso]) {
      await assert.rejects(run(made, { volume: iso, target }), { message: `volume '${target}' already exists` })
    }
    await assert.rejects(run(made, { volume: 'local:iso/none.iso', target: 'fast:iso/c.iso' }), /does not exist/)
    assert.deepEqual(await made.look(), before)
  })

  test('that makes no sense is refused by name', () => {
    const refused = (volume: string, target: string) => {
      try {
        copyRequest(asVolumeId(volume), asVolumeId(target))
        return undefined
      } catch (fault) {
        return Object.keys((fault as Fault).fields ?? {})[0]
      }
    }
    assert.equal(refused(iso, 'fast:iso/b.iso'), undefined)
    assert.equal(refused(disk, 'fast:101/vm-101-disk-0.raw'), undefined)
    for (const [volume, target, field] of [
      [iso, 'fast:101/vm-101-disk-0.raw', 'target'],
      [iso, 'fast:vztmpl/a.tar', 'target'],
      [iso, iso, 'target'],
      [disk, 'fast:101/base-101-disk-0.raw', 'target'],
      ['local:backup/vm/100/2026-11-20T10:00:00Z', 'fast:iso/a.iso', 'volume'],
      ['local:import/a.ova/b.vmdk', 'fast:import/b.vmdk', 'volume'],
    ] as const) {
      assert.equal(refused(volume, target), field, `${volume} to ${target}`)
    }
  })

  test('keeps starts of both guests out', () => {
    const locks = copyVolume.facts.locks?.({ volume: disk, target: 'fast:101/vm-101-disk-0.raw' })
    assert.deepEqual(locks, ['guest/100', 'guest/101'])
  })
})

test('two storages in one place have one identity, and two places two', async () => {
  await using made = await world()
  const { service, folder } = made.lab
  const link = join(folder, 'link')
  await host.run(['ln', '-s', join(folder, 'storage'), link])
  await service.create({ storage: 'again', type: 'dir', path: link, content: 'iso' })
  const [local, again, fast] = await Promise.all(['local', 'again', 'fast'].map((name) => service.identity(name)))
  assert.deepEqual(local, again)
  assert.notDeepEqual(local, fast)
  assert.equal(local?.type, 'dir')
})
