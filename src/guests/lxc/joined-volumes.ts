/** The volumes of a container in one another, as it will see them: for what comes as one tree. */
import { chown, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { codeOf, makeDirectory } from '#host/files.ts'
import { bindMount } from '#host/disks/bind-mount.ts'
import type { Options } from '../config.ts'
import { rootOf } from './idmap.ts'
import { idsOfMount } from './mount-ids.ts'
import { type Mount, mountsOf } from './mountpoint.ts'
import { mountsDirOf } from './volumes.ts'

/**
 * Mounts volumes that are open into one another, at the paths inside. Only for empty ones: in others a link may stand in
 * the way. Undone by `closeVolumes`.
 */
export async function joinVolumes(
  { runDir }: { readonly runDir: string },
  vmid: Vmid,
  options: Options,
  places: Readonly<Record<string, string>>,
): Promise<string> {
  const root = rootOf(options)
  const whole = join(mountsDirOf(runDir, vmid), 'whole')
  await makeDirectory(join(runDir, 'mounts'))
  await makeDirectory(mountsDirOf(runDir, vmid))
  await makeDirectory(whole)
  const byDepth = mountsOf(options).toSorted((a, b) => depthOf(a) - depthOf(b))
  for (const { name, path, values } of byDepth) {
    const place = places[name]
    if (place === undefined) continue
    let target = whole
    for (const folder of foldersOf(path)) {
      target = join(target, folder)
      if (await isMade(target)) await chown(target, root, root)
    }
    await bindMount({ source: place, target, rules: [], ids: idsOfMount(options, values.idmap) })
  }
  return whole
}

function foldersOf(path: string): string[] {
  const folders = path.split('/').filter((part) => part !== '' && part !== '.')
  if (folders.includes('..')) throw new Fault('invalid', `'${path}' is no plain path of a mount point`)
  return folders
}

const depthOf = ({ path }: Mount) => foldersOf(path).length

/** Makes the folder; false when it is there. */
async function isMade(path: string): Promise<boolean> {
  try {
    await mkdir(path, { mode: 0o755 })
    return true
  } catch (cause) {
    if (codeOf(cause) === 'EEXIST') return false
    throw cause
  }
}
