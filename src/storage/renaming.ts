/** Volumes that pass from one guest to another: the same volume, under a name of its new owner. */
import { Fault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { requireUnlinked } from './links.ts'
import type { OpenStorage } from './opened.ts'
import { type ImageName, isBase, nextImageName, nextTreeName, type TreeName, volumeId } from './volume.ts'

/** The next free name of that guest's for a volume like this. */
export async function nameUnder<Name extends ImageName | TreeName>(
  { images, trees }: OpenStorage,
  name: Name,
  vmid: Vmid,
): Promise<ImageName | TreeName> {
  const next =
    name.kind === 'tree'
      ? nextTreeName(
          vmid,
          (await trees.list(vmid)).map((facts) => facts.name),
        )
      : nextImageName(
          vmid,
          name.format,
          (await images.list(vmid)).map((facts) => facts.name),
        )
  // What it is based on, it stays based on.
  return { ...name, vmid: next.vmid, base: next.base }
}

/** @throws Fault `conflict` for what others refer to by its name: a template's volume, and one with snapshots */
export async function renameVolume(
  open: OpenStorage,
  name: ImageName | TreeName,
  other: ImageName | TreeName,
): Promise<void> {
  const volid = volumeId(open.config.name, name)
  if (isBase(name)) throw new Fault('conflict', `volume '${volid}' is of a template`)
  await requireUnlinked(open, name)
  if (name.kind === 'tree' && other.kind === 'tree') {
    await open.trees.rename(name, other)
  } else if (name.kind === 'image' && other.kind === 'image' && name.format === other.format) {
    await open.images.rename(name, other)
  } else throw new Fault('invalid', `volume '${volid}' cannot become '${volumeId(open.config.name, other)}'`)
}
