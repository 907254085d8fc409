/**
 * The contract every storage driver keeps, on real files, devices and tools.
 *
 * A driver's own test calls `conformance(plugin, lab)`; the lab makes a fresh place for a storage. Parts a
 * driver does not have (see `plugin.content`) are not asked for; everything else is.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { open as openFile, readFile, writeFile } from 'node:fs/promises'
import { suite, test, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { KiB, MiB } from '#base/bytes.ts'
import { waitFor } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { asVmid } from '#base/ids.ts'
import { machine } from '#host/exec.ts'
import { convertImage, imageInfo } from '#host/qemu/qemu-img.ts'
import { leavingRules } from './conformance-leaving.ts'
import { snapshotRules, linkRules } from './conformance-links.ts'
import { treeRules } from './conformance-trees.ts'
import { firstLetter, nonZeroBytes, temporaryFile, writeInto } from './image-content.ts'
import type { FilePart, ImagePart, StorageDriver, StoragePlugin } from './plugin.ts'
import type { FileName, ImageFormat, ImageName, TreeName } from './volume.ts'

const run = promisify(execFile)
const host = machine()
const vmid = asVmid(100)

export type Options = Readonly<Record<string, unknown>>
export interface StorageLab {
  /** Options of a new, empty storage with room for at least 64 MiB. Removed when the test ends. */
  readonly place: (t: TestContext) => Promise<Options>
  /** The same with room for less than 16 MiB. */
  readonly tightPlace: (t: TestContext) => Promise<Options>
}

export function conformance(plugin: StoragePlugin, lab: StorageLab): void {
  const open = (options: Options) => plugin.open(options, { host, storage: 'under-test' })
  const fresh = async (t: TestContext) => prepared(open(await lab.place(t)))
  suite(`a storage of type ${plugin.type}`, () => {
    spaceRules(fresh)
    if (plugin.content.includes('images')) {
      for (const format of plugin.features.formats) imageRules(plugin, format, lab, open)
    }
    if (plugin.content.includes('rootdir')) treeRules(plugin, lab, writerToKill(plugin.type))
    if (plugin.content.includes('iso')) fileRules(lab, open)
    if (plugin.content.includes('backup')) datastoreRules(fresh)
  })
}

async function prepared(driver: StorageDriver): Promise<StorageDriver> {
  await driver.prepare()
  return driver
}

function imagesOf(driver: StorageDriver): ImagePart {
  assert.ok(driver.images, 'a driver whose content includes images has the part for them')
  return driver.images
}

function filesOf(driver: StorageDriver): FilePart {
  assert.ok(driver.files, 'a driver whose content includes files has the part for them')
  return driver.files
}

function spaceRules(fresh: (t: TestContext) => Promise<StorageDriver>): void {
  test('it knows how much room it has', async (t) => {
    const { totalBytes, usedBytes, availableBytes } = await (await fresh(t)).space()
    assert.ok(totalBytes >= usedBytes + availableBytes)
    assert.ok(availableBytes > 0)
  })

  test('it can be prepared again', async (t) => {
    const driver = await fresh(t)
    await driver.prepare()
    await driver.requireActive()
  })
}

function imageRules(plugin: StoragePlugin, format: ImageFormat, lab: StorageLab, open: (o: Options) => StorageDriver) {
  const disk: ImageName = { kind: 'image', vmid, base: 'vm-100-disk-0', format }
  const other: ImageName = { ...disk, vmid: asVmid(101), base: 'vm-101-disk-0' }
  const fresh = async (t: TestContext) => imagesOf(await prepared(open(await lab.place(t))))

  test(`a new ${format} image has its size, is empty, and is found`, async (t) => {
    const images = await fresh(t)
    await images.create(disk, { sizeBytes: 8 * MiB })
    await images.create(other, { sizeBytes: MiB })

    const info = await imageInfo(host, { path: images.path(disk), format })
    assert.deepEqual([info.format, info.virtualSizeBytes, info.refersTo], [format, 8 * MiB, []])
    assert.equal(await nonZeroBytes(t, images.path(disk), format), 0)
    const facts = await images.describe(disk)
    assert.deepEqual(facts.name, disk)
    assert.equal(facts.sizeBytes, 8 * MiB)
    if (plugin.features.sparse) assert.ok(facts.usedBytes < MiB, `takes ${facts.usedBytes} bytes while empty`)
    assert.deepEqual(await images.list(vmid), [facts])
    assert.equal((await images.list()).length, 2)
  })

  test(`of many who make the same ${format} image at once, one succeeds`, async (t) => {
    const driver = await prepared(open(await lab.place(t)))
    const images = imagesOf(driver)
    const marks = ['A', 'B', 'C', 'D', 'E', 'F']
    const results = await Promise.allSettled(
      marks.map((mark) => images.create(disk, { sizeBytes: MiB, fill: (path) => writeInto(path, format, mark) })),
    )

    const winners = marks.filter((_, at) => results[at]?.status === 'fulfilled')
    assert.equal(winners.length, 1)
    for (const result of results) {
      if (result.status === 'rejected') assert.equal((result.reason as Fault).kind, 'conflict')
    }
    assert.equal(await firstLetter(t, images.path(disk), format), winners[0])
    assert.equal((await images.list()).length, 1)
    assert.deepEqual(await driver.sweep(), [])
  })

  test(`a ${format} image that cannot be filled is not there`, async (t) => {
    const driver = await prepared(open(await lab.place(t)))
    const images = imagesOf(driver)
    const fill = async () => Promise.reject(new Fault('aborted', 'changed my mind'))
    await assert.rejects(images.create(disk, { sizeBytes: MiB, fill }), /changed my mind/)
    assert.deepEqual(await images.list(), [])
    await assert.rejects(images.describe(disk), /does not exist/)
    assert.deepEqual(await driver.sweep(), [])
  })

  test(`a full device ends the copy of a ${format} image, says so, and gives the space back`, async (t) => {
    const driver = await prepared(open(await lab.tightPlace(t)))
    const images = imagesOf(driver)
    const before = (await driver.space()).availableBytes
    const sizeBytes = Math.ceil(before / MiB) * MiB + 8 * MiB
    const source = await randomFile(t, sizeBytes)
    const fill = (path: string) =>
      convertImage(host, { source: { path: source, format: 'raw' }, target: { path, format }, isTargetZero: true })

    await assert.rejects(images.create(disk, { sizeBytes, fill }), (fault: Fault) => {
      assert.equal(fault.kind, 'exhausted')
      assert.match(fault.message, /no space left/)
      return true
    })
    assert.deepEqual(await images.list(), [])
    await untilReturned(driver, before)
  })

  test(`kill -9 while a ${format} image is made leaves nothing to see, and a sweep removes the rest`, async (t) => {
    const options = await lab.place(t)
    const driver = await prepared(open(options))
    const writer = await hangingWriter(t, plugin.type, options, disk)

    assert.deepEqual(await driver.sweep(), [], 'what a living process writes is left alone')
    await killed(writer)
    assert.deepEqual(await imagesOf(driver).list(), [])
    assert.equal((await driver.sweep()).length, 1)
    assert.deepEqual(await driver.sweep(), [])
    await imagesOf(driver).create(disk, { sizeBytes: MiB })
  })

  test(`a ${format} image grows and keeps what it holds`, async (t) => {
    const images = await fresh(t)
    await images.create(disk, { sizeBytes: MiB, fill: (path) => writeInto(path, format, 'K') })
    await images.grow(disk, 3 * MiB)
    assert.equal((await images.describe(disk)).sizeBytes, 3 * MiB)
    assert.equal(await firstLetter(t, images.path(disk), format), 'K')
  })

  test(`a ${format} image passes to another guest whole, and takes the place of nobody`, async (t) => {
    const images = await fresh(t)
    await images.create(disk, { sizeBytes: MiB, fill: (path) => writeInto(path, format, 'H') })
    await images.create(other, { sizeBytes: MiB })
    await assert.rejects(images.rename(disk, other), /already exists/)
    const next = { ...other, base: 'vm-101-disk-9' }
    await images.rename(disk, next)
    await images.rename(disk, next)
    assert.equal(await firstLetter(t, images.path(next), format), 'H')
    assert.deepEqual([(await images.list(vmid)).length, (await images.list()).length], [0, 2])
  })

  test(`a ${format} image is replaced in one act, and whoever has it open keeps what it was`, async (t) => {
    const images = await fresh(t)
    const filled = (letter: string) => ({ sizeBytes: MiB, fill: (path: string) => writeInto(path, format, letter) })
    await images.replace(disk, filled('A'))
    await using old = await openFile(images.path(disk))
    const contentOf = async () => (await old.read({ buffer: Buffer.alloc(MiB), position: 0 })).buffer
    const before = await contentOf()
    const broken = { sizeBytes: MiB, fill: async () => Promise.reject(new Fault('aborted', 'changed my mind')) }
    await assert.rejects(images.replace(disk, broken), /changed my mind/)
    assert.equal(await firstLetter(t, images.path(disk), format), 'A')
    await images.replace(disk, filled('B'))
    assert.equal(await firstLetter(t, images.path(disk), format), 'B')
    assert.deepEqual(await contentOf(), before)
    assert.equal((await images.list()).length, 1)
  })

  test(`a ${format} image can be used by the one it is given to, and by nobody else`, async (t) => {
    const images = await fresh(t)
    await images.create(disk, { sizeBytes: MiB })
    await images.giveTo(disk, 1_000_000_100)
    const readAs = (uid: number) =>
      run('setpriv', [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', 'head', '-c', '1', images.path(disk)])
    await readAs(1_000_000_100)
    await assert.rejects(readAs(1_000_000_101), /Permission denied/)
    assert.equal((await images.list(vmid)).length, 1)
  })

  if (plugin.features.snapshots.includes(format)) snapshotRules(format, disk, fresh)
  if (plugin.features.linkedClones) linkRules(format, disk, fresh)

  leavingRules(`${format} image`, async (t) => {
    const images = await fresh(t)
    await images.create(disk, { sizeBytes: MiB })
    const isListed = async () => (await images.list()).length > 0
    return { part: images, name: disk, isListed, content: () => readFile(images.path(disk)) }
  })
}

function fileRules(lab: StorageLab, open: (o: Options) => StorageDriver): void {
  const iso: FileName = { kind: 'file', content: 'iso', file: 'tiny.iso' }
  const fresh = async (t: TestContext) => filesOf(await prepared(open(await lab.place(t))))
  const put = async (files: FilePart, name: FileName, text: string, mark = 'one') => {
    const identity = await files.stage(name, mark, (path) => writeFile(path, text))
    await files.publish(name, mark)
    return identity
  }

  test('a file appears whole when it is published, and replaces the one before it', async (t) => {
    const files = await fresh(t)
    await put(files, iso, 'first')
    await files.stage(iso, 'two', (path) => writeFile(path, 'second'))
    assert.equal(await readFile(files.path(iso), 'utf8'), 'first')
    await files.publish(iso, 'two')
    await assert.rejects(files.publish(iso, 'two'), /does not exist/)
    assert.equal(await readFile(files.path(iso), 'utf8'), 'second')
    const [listed, ...rest] = await files.list('iso')
    assert.deepEqual([listed?.name, listed?.sizeBytes, rest], [iso, 6, []])
    assert.deepEqual(await files.list('vztmpl'), [])
  })

  test('publishing a file can be undone, also twice, and also when it never happened', async (t) => {
    const driver = await prepared(open(await lab.place(t)))
    const files = filesOf(driver)
    const content = () => readFile(files.path(iso), 'utf8')
    const first = await put(files, iso, 'first', 'one')
    await files.withdraw(iso, 'one', first)
    await files.withdraw(iso, 'one', first)
    assert.deepEqual(await files.list('iso'), [], 'there was none before')

    await put(files, iso, 'old', 'two')
    const unpublished = await files.stage(iso, 'three', (path) => writeFile(path, 'new'))
    await files.withdraw(iso, 'three', unpublished)
    assert.equal(await content(), 'old')
    await files.publish(iso, 'three')
    assert.equal(await content(), 'new')
    await files.withdraw(iso, 'three', unpublished)
    assert.equal(await content(), 'old')
    await files.discard(iso, 'three')
    await files.withdraw(iso, 'three', unpublished)
    await files.erase(iso, 'three')
    assert.equal(await content(), 'old')
  })

  test('what a file has replaced is gone once it is erased', async (t) => {
    const files = await fresh(t)
    await put(files, iso, 'old', 'one')
    const identity = await put(files, iso, 'new', 'two')
    await files.erase(iso, 'two')
    assert.equal(await readFile(files.path(iso), 'utf8'), 'new')
    await files.withdraw(iso, 'two', identity)
    assert.deepEqual(await files.list('iso'), [], 'nothing was kept to go back to')
  })

  test('a file that cannot be written is not there and leaves nothing', async (t) => {
    const driver = await prepared(open(await lab.place(t)))
    const files = filesOf(driver)
    await assert.rejects(
      files.stage(iso, 'one', async (path) => {
        await writeFile(path, 'half')
        throw new Fault('damaged', 'checksum mismatch')
      }),
      /checksum mismatch/,
    )
    await files.stage(iso, 'one', (path) => writeFile(path, 'unwanted'))
    await files.discard(iso, 'one')
    await files.discard(iso, 'one')
    assert.deepEqual(await files.list('iso'), [])
    assert.deepEqual(await driver.sweep(), [])
  })

  test('a full device refuses a file, says so, and gives the space back', async (t) => {
    const driver = await prepared(open(await lab.tightPlace(t)))
    const before = (await driver.space()).availableBytes
    const tooMuch = Buffer.alloc(before + MiB, 7)
    await assert.rejects(
      filesOf(driver).stage(iso, 'one', (path) => writeFile(path, tooMuch)),
      (fault: Fault) => fault.kind === 'exhausted',
    )
    assert.deepEqual(await filesOf(driver).list('iso'), [])
    await untilReturned(driver, before)
  })

  leavingRules('file', async (t) => {
    const files = await fresh(t)
    await put(files, iso, 'content')
    const isListed = async () => (await files.list('iso')).length > 0
    return { part: files, name: iso, isListed, content: () => readFile(files.path(iso)) }
  })
}

function datastoreRules(fresh: (t: TestContext) => Promise<StorageDriver>): void {
  test('it has a folder for the backup engine that only root may enter', async (t) => {
    const driver = await fresh(t)
    assert.ok(driver.datastore)
    const folder = await driver.datastore()
    assert.equal(await driver.datastore(), folder)
    await writeFile(`${folder}/probe`, 'x')
    await assert.rejects(run('setpriv', ['--reuid=1000000100', '--regid=1000000100', '--clear-groups', 'ls', folder]))
  })
}

async function untilReturned(driver: StorageDriver, availableBytes: number): Promise<void> {
  await waitFor(async () => (await driver.space()).availableBytes >= availableBytes - 256 * KiB, {
    what: 'return of the space',
    timeoutMs: 5_000,
  })
}

async function randomFile(t: TestContext, sizeBytes: number): Promise<string> {
  const path = await temporaryFile(t)
  await run('dd', ['if=/dev/urandom', `of=${path}`, 'bs=1M', `count=${Math.ceil(sizeBytes / MiB)}`])
  return path
}

/** Starts a process in the middle of making a volume and returns its end by kill -9. */
function writerToKill(type: string) {
  return async (t: TestContext, options: Options, name: TreeName) => {
    const writer = await hangingWriter(t, type, options, name)
    return () => killed(writer)
  }
}

/** A process in the middle of making an image or a tree, for as long as it lives. */
async function hangingWriter(
  t: TestContext,
  type: string,
  options: Options,
  name: ImageName | TreeName,
): Promise<ChildProcess> {
  const program = `
    import { writeFile } from 'node:fs/promises'
    import { machine } from '#host/exec.ts'
    import { pluginOf } from '#storage/plugins/all.ts'
    const [type, options, name] = JSON.parse(process.argv[1])
    const driver = pluginOf(type).open(options, { host: machine(), storage: 'under-test' })
    const fill = () => new Promise(() => { console.log('filling'); setInterval(() => {}, 1000) })
    if (name.kind === 'image') await driver.images.create(name, { sizeBytes: 1048576, fill })
    else await driver.trees.create(name, async (path) => { await writeFile(path + '/half', 'half'); await fill() })`
  const args = ['--input-type=module-typescript', '--eval', program, JSON.stringify([type, options, name])]
  const child = spawn(process.execPath, args, { cwd: import.meta.dirname, stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  let said = ''
  child.stdout.on('data', (part) => (said += String(part)))
  await waitFor(() => said.includes('filling'), { what: 'a writer in the middle of its work', timeoutMs: 20_000 })
  return child
}

async function killed(child: ChildProcess): Promise<void> {
  const gone = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGKILL')
  await gone
}
