/** The part of the drivers' contract about snapshots and linked clones; see `conformance.ts`. */
import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { MiB } from '#base/bytes.ts'
import type { Fault } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { machine } from '#host/exec.ts'
import { firstLetter, writeInto } from './image-content.ts'
import type { ImagePart } from './plugin.ts'
import type { ImageFormat, ImageName } from './volume.ts'

const host = machine()

export function snapshotRules(
  format: ImageFormat,
  disk: ImageName,
  fresh: (t: TestContext) => Promise<ImagePart>,
): void {
  const snapshotsIn = ({ snapshots }: ImagePart) => {
    assert.ok(snapshots, 'a driver that names formats with snapshots has the verbs')
    return snapshots
  }

  test(`a ${format} image goes back to its snapshot, in content and in size`, async (t) => {
    const images = await fresh(t)
    const snapshots = snapshotsIn(images)
    await images.create(disk, { sizeBytes: MiB, fill: (path) => writeInto(path, format, 'B') })
    await snapshots.take(disk, 'before')
    await writeInto(images.path(disk), format, 'A')
    await images.grow(disk, 2 * MiB)
    await snapshots.take(disk, 'after')
    assert.deepEqual(await snapshots.list(disk), ['before', 'after'])
    await snapshots.rollBack(disk, 'before')
    assert.equal(await firstLetter(t, images.path(disk), format), 'B')
    assert.equal((await images.describe(disk)).sizeBytes, MiB)
    await snapshots.rollBack(disk, 'after')
    assert.equal(await firstLetter(t, images.path(disk), format), 'A')
    assert.equal((await images.describe(disk)).sizeBytes, 2 * MiB)
  })

  test(`a snapshot of a ${format} image is taken and dropped once, however often it is asked for`, async (t) => {
    const images = await fresh(t)
    const snapshots = snapshotsIn(images)
    await images.create(disk, { sizeBytes: MiB })
    await snapshots.drop(disk, 'never')
    await assert.rejects(snapshots.rollBack(disk, 'never'), /snapshot 'never' .* does not exist/)
    await snapshots.take(disk, 'one')
    await snapshots.take(disk, 'one')
    assert.deepEqual(await snapshots.list(disk), ['one'])
    await snapshots.drop(disk, 'one')
    await snapshots.drop(disk, 'one')
    assert.deepEqual(await snapshots.list(disk), [])
  })
}

export function linkRules(format: ImageFormat, disk: ImageName, fresh: (t: TestContext) => Promise<ImagePart>): void {
  const linksIn = ({ links }: ImagePart) => {
    assert.ok(links, 'a driver that says it links has the verbs')
    return links
  }
  const free: ImageName = { kind: 'image', vmid: asVmid(101), base: 'vm-101-disk-0', format }

  test(`a disk linked to a ${format} image holds its content, and says so in its name where it refers to it`, async (t) => {
    const images = await fresh(t)
    const links = linksIn(images)
    await images.create(disk, { sizeBytes: MiB, fill: (path) => writeInto(path, format, 'P') })
    const notYet: ImageName = { ...disk, base: 'base-100-disk-0' }
    await assert.rejects(links.link(links.nameOf(free, notYet), disk), /cannot be the base/)
    const base = await links.freeze(disk)
    assert.deepEqual([base.base, await links.freeze(disk), await links.freeze(base)], ['base-100-disk-0', base, base])
    const clone = links.nameOf(free, base)
    await links.link(clone, base)
    await assert.rejects(links.link(clone, base), (fault: Fault) => fault.kind === 'conflict')

    assert.deepEqual((await images.list(asVmid(101)))[0]?.name, clone)
    assert.equal((await images.describe(clone)).sizeBytes, MiB)
    const layers = await links.layers(clone)
    const below = clone.parent ? [images.path(base)] : []
    assert.deepEqual(
      layers.map(({ path }) => path),
      [images.path(clone), ...below],
    )
    assert.equal(await firstLetter(t, images.path(clone), clone.format), 'P')
    await writeInto(images.path(clone), clone.format, 'C')
    assert.equal(await firstLetter(t, images.path(base), format), 'P')
    if (clone.parent) {
      const { parent: _, ...unlinked } = clone
      await assert.rejects(images.describe(unlinked), /does not exist/)
    } else {
      await assert.rejects(images.describe({ ...clone, parent: base }), /does not exist/)
      await images.remove(base)
      assert.equal(await firstLetter(t, images.path(clone), clone.format), 'C')
    }
  })

  test(`a ${format} image becomes an ordinary disk again, also twice`, async (t) => {
    const images = await fresh(t)
    const links = linksIn(images)
    await images.create(disk, { sizeBytes: MiB, fill: (path) => writeInto(path, format, 'P') })
    const base = await links.freeze(disk)
    assert.deepEqual([await links.unfreeze(base), await links.unfreeze(base)], [disk, disk])
    assert.deepEqual(
      (await images.list()).map(({ name }) => name),
      [disk],
    )
    await writeInto(images.path(disk), format, 'Q')
    assert.equal(await firstLetter(t, images.path(disk), format), 'Q')
  })

  test(`a disk that says it is based on something else than its name does is not opened (${format} base)`, async (t) => {
    const images = await fresh(t)
    const links = linksIn(images)
    await images.create(disk, { sizeBytes: MiB })
    const base = await links.freeze(disk)
    const clone = links.nameOf(free, base)
    // Of one that shares blocks and refers to nothing there is nothing to believe.
    if (!clone.parent) return
    await links.link(clone, base)
    const path = images.path(clone)
    const { parent: _, ...unlinked } = clone
    for (const other of ['/etc/shadow', '../100/base-100-disk-9.raw']) {
      await host.run(['qemu-img', 'rebase', '-u', '-f', 'qcow2', '-b', other, '-F', 'raw', path])
      await assert.rejects(links.layers(clone), (fault: Fault) => fault.kind === 'invalid')
      await assert.rejects(links.layers(unlinked), (fault: Fault) => fault.kind === 'invalid')
    }
    await host.run(['qemu-img', 'rebase', '-u', '-f', 'qcow2', '-b', '', path])
    await assert.rejects(links.layers(clone), /no longer based on/)
  })
}
