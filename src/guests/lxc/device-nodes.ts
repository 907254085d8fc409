/**
 * Device nodes of a container's own, with the owner it asks for: those of the node stay as they are.
 *
 * They stand in a small file system of their own, since those of run directories are mounted without devices.
 */
import { chmod, chown, lstat } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import { asFileFault, makeDirectory } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import type { Device } from './device.ts'

/** @param root who root inside is outside. @throws Fault `missing` when the node has no such device, `invalid` */
export async function makeDevices(
  host: Host,
  directory: string,
  { devices, root }: { readonly devices: readonly Device[]; readonly root: number },
): Promise<{ readonly source: string; readonly path: string; readonly number: string }[]> {
  if (devices.length === 0) return []
  await makeDirectory(directory)
  await host.run(['mount', '-t', 'tmpfs', '-o', 'mode=711,size=64k,nosuid,noexec', 'none', directory])
  const made: { source: string; path: string; number: string }[] = []
  for (const { name, path, uid, gid, mode } of devices) {
    const facts = await lstat(path).catch((cause: unknown) => {
      throw asFileFault(cause, path)
    })
    if (!facts.isCharacterDevice() && !facts.isBlockDevice()) {
      throw new Fault('invalid', `${name}: '${path}' is no device`)
    }
    const source = join(directory, name)
    const [major, minor] = numbersOf(facts.rdev)
    const kind = facts.isBlockDevice() ? 'b' : 'c'
    await host.run(['mknod', source, kind, String(major), String(minor)])
    await chmod(source, mode)
    await chown(source, root + uid, root + gid)
    made.push({ source, path, number: `${kind} ${major}:${minor}` })
  }
  return made
}

/** As the kernel packs them: twelve bits of the one between eight and twelve of the other. */
function numbersOf(rdev: number): [major: number, minor: number] {
  return [(rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xfff00)]
}
