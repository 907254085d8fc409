/** Storage on btrfs: the contract of all drivers, on a real file system, and what only this one does. */
import { chmod, mkdtemp, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, type TestContext } from 'node:test'
import { GiB, MiB } from '#base/bytes.ts'
import { machine } from '#host/exec.ts'
import { unmountBelow } from '#host/mount.ts'
import { conformance } from '../conformance.ts'
import { btrfs } from './btrfs.ts'

const host = machine()
let folder = ''

before(async () => {
  folder = await mkdtemp('/var/tmp/hako-btrfs-')
  await chmod(folder, 0o711)
  await fileSystem('large', GiB, [])
})

after(async () => {
  await unmountBelow(host, folder)
  await rm(folder, { recursive: true })
})

/** A new file system; the loop device goes with its mount. */
async function fileSystem(name: string, sizeBytes: number, options: readonly string[]): Promise<string> {
  const [image, target] = [join(folder, `${name}.raw`), join(folder, name)]
  await using file = await open(image, 'wx')
  await file.truncate(sizeBytes)
  await host.run(['mkfs.btrfs', '--quiet', ...options, image])
  await host.run(['mkdir', target])
  await host.run(['mount', '-o', 'loop,commit=1', image, target])
  await chmod(target, 0o711)
  return target
}

let places = 0
async function place(): Promise<string> {
  places += 1
  return join(folder, `large/${places}`)
}

async function tightPlace(t: TestContext): Promise<string> {
  places += 1
  const target = await fileSystem(`tight${places}`, 24 * MiB, ['--mixed', '--metadata', 'single', '--data', 'single'])
  t.after(() => unmountBelow(host, target))
  return target
}

conformance(btrfs, {
  place: async () => ({ path: await place() }),
  tightPlace: async (t) => ({ path: await tightPlace(t) }),
})
