/** What a foreign machine is made of, in words `POST /nodes/{node}/qemu` takes. */
import { Fault, invalid } from '#base/fault.ts'
import { asVolumeId, type VolumeId } from '#base/ids.ts'
import { array, enumOf, object, optional, record, type Static, string } from '#base/schema/schema.ts'
import { readForeignFile } from '#host/files.ts'
import { memberText, membersOf } from '#storage/archive.ts'
import { mostOvfBytes, type Ovf, parseOvf } from '#storage/ovf.ts'
import { parseVolumeId, plainFileName } from '#storage/volume.ts'

export const importMetadata = object({
  type: enumOf(['vm'], { description: 'Kind of guest.' }),
  source: string({ description: 'Where it comes from.' }),
  'create-args': record({ description: 'Options of the new guest.' }),
  disks: optional(record({ description: 'By drive: the volume to import from, and its size in bytes.' })),
  net: optional(record({ description: 'By card: its model, and the address it had.' })),
  warnings: optional(
    array(
      object({
        type: enumOf(['cdrom-image-ignored', 'efi-state-lost', 'nvme-unsupported', 'ova-needs-extracting'], {
          description: 'What cannot be carried over.',
        }),
        key: optional(string({ description: 'The option it is about.' })),
        value: optional(string({ description: 'What it was.' })),
      }),
    ),
  ),
})

type Storages = { readonly location: (volid: VolumeId) => Promise<{ readonly path: string }> }

/** @throws Fault `invalid` for a volume that describes no machine, `damaged`, `missing` */
export async function metadataOf(storages: Storages, volid: VolumeId): Promise<Static<typeof importMetadata>> {
  const { storage, name } = parseVolumeId(volid)
  const kind = name.kind === 'file' && name.content === 'import' ? /\.(ova|ovf)$/i.exec(name.file)?.[1] : undefined
  if (name.kind !== 'file' || kind === undefined) {
    throw invalid({ volume: `volume '${volid}' is neither an .ova nor an .ovf of content 'import'` })
  }
  const { path } = await storages.location(volid)
  const isArchive = kind.toLowerCase() === 'ova'
  const ovf = parseOvf(isArchive ? await ovfInside(path) : await ovfAt(path))
  // Files were given plain names on their way into the storage, and so are members.
  const volumeOf = (file: string) =>
    asVolumeId(isArchive ? `${volid}/${plainFileName(file)}` : `${storage}:import/${plainFileName(file)}`)
  const disks = ovf.disks.map(({ drive, file, sizeBytes }) => {
    return [drive, { volid: volumeOf(decoded(file)), ...(sizeBytes === undefined ? {} : { size: sizeBytes }) }]
  })
  return {
    type: 'vm',
    source: volid,
    'create-args': optionsOf(ovf),
    disks: Object.fromEntries(disks) as Record<string, unknown>,
    net: Object.fromEntries(ovf.nics.map((nic, index) => [`net${index}`, nic])),
    warnings: [...ovf.warnings],
  }
}

async function ovfInside(path: string): Promise<string> {
  const found = (await membersOf(path)).filter(({ name }) => /\.ovf$/i.test(name))
  const [only, ...others] = found
  if (!only || others.length > 0) {
    throw new Fault('damaged', `archive '${path}' has ${found.length} OVF descriptions, and must have one`)
  }
  return memberText(path, only, mostOvfBytes)
}

async function ovfAt(path: string): Promise<string> {
  const bytes = await readForeignFile(path, mostOvfBytes + 1)
  if (!bytes || bytes.length > mostOvfBytes) throw new Fault('too-large', `'${path}' is no OVF of at most 1 MiB`)
  return bytes.toString('utf8')
}

/** References are URLs; most writers do not know that. */
function decoded(file: string): string {
  try {
    return decodeURIComponent(file)
  } catch {
    return file
  }
}

function optionsOf({ name, cores, memoryMiB, ostype, isEfi, scsihw }: Ovf): Record<string, string | number> {
  return {
    ...(name === undefined ? {} : { name }),
    ...(cores === undefined ? {} : { cores }),
    ...(memoryMiB === undefined ? {} : { memory: memoryMiB }),
    ...(ostype === undefined ? {} : { ostype }),
    ...(scsihw === undefined ? {} : { scsihw }),
    ...(isEfi ? { bios: 'ovmf' } : {}),
  }
}
