/**
 * The cloud-init drive of a guest as a volume: written whole, in one act, from what the guest is told.
 *
 * Nothing is ever read from it and nothing of it is kept: whoever needs it writes it anew. So a volume that is gone is
 * made again, and a guest that still has the old one open keeps what it has until its medium is changed.
 */
import { readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB } from '#base/bytes.ts'
import { Fault } from '#base/fault.ts'
import { asVolumeId, type Vmid, type VolumeId } from '#base/ids.ts'
import { makeDirectory } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { writeIso } from '#host/files/iso.ts'
import { nameServers, searchDomains } from '#host/network/resolver.ts'
import type { Options } from '../config.ts'
import type { GuestStorage } from '../needs.ts'
import { snippetsOf, withoutSecrets } from './options.ts'
import type { Seed } from './seed.ts'

/** Of every such drive; what it holds is a fraction of it, unless snippets are large. */
export const cloudInitBytes = 4 * MiB
const snippetBytes = MiB

export interface CloudInitNeeds {
  readonly settings: { readonly runDir: string }
  readonly host: Host
  readonly storage: GuestStorage
}

/** @throws Fault `missing` naming the snippet that is not there */
export async function seedFor({ storage }: CloudInitNeeds, vmid: Vmid, options: Options): Promise<Seed> {
  const named = Object.entries(snippetsOf(options))
  const contents = await Promise.all(named.map(([kind, volume]) => readSnippet(storage, kind, volume)))
  const snippets = Object.fromEntries(named.map(([kind], index) => [kind, contents[index] ?? new Uint8Array()]))
  const dns = { servers: await nameServers(), search: await searchDomains() }
  // Only here: it brings a library for YAML that most tasks, and the daemon at rest, have no use for.
  const { seedOf } = await import('./seed.ts')
  return seedOf(options, { vmid, dns, snippets })
}

async function readSnippet(storage: GuestStorage, kind: string, volume: string): Promise<Uint8Array> {
  const where = `cicustom, ${kind}`
  const found = await storage.location(asVolumeId(volume)).catch((cause: unknown) => {
    if (!(cause instanceof Fault)) throw cause
    throw new Fault(cause.kind, `${where}: ${cause.message}`, {
      cause,
      remedy: 'Put the snippet there, or change cicustom.',
    })
  })
  if (found.sizeBytes > snippetBytes) {
    throw new Fault('too-large', `${where}: snippet '${volume}' is larger than ${snippetBytes} bytes`)
  }
  return readFile(found.path)
}

/**
 * Writes the drive in this volume, and makes the volume when it is not there.
 * @throws Fault `missing` naming the snippet, `exhausted` naming the storage; the drive is what it was then
 */
export async function writeCloudInit(
  needs: CloudInitNeeds,
  vmid: Vmid,
  { volid, options }: { readonly volid: VolumeId; readonly options: Options },
): Promise<void> {
  const { label, files } = await seedFor(needs, vmid, options)
  const place = join(needs.settings.runDir, 'cloud-init', String(vmid))
  // What a writer left that was killed: there is one at a time, who holds the guest's lock.
  await rm(place, { recursive: true, force: true })
  await makeDirectory(needs.settings.runDir)
  await makeDirectory(place, 0o700)
  try {
    const source = join(place, 'drive.iso')
    await writeIso(needs.host, { path: source, label, files })
    const { size } = await stat(source)
    if (size > cloudInitBytes) {
      throw new Fault(
        'too-large',
        `the cloud-init drive of VM ${vmid} has ${cloudInitBytes} bytes, not the ${size} it takes`,
      )
    }
    await needs.storage.rewrite(volid, { source, sizeBytes: cloudInitBytes })
  } finally {
    await rm(place, { recursive: true, force: true })
  }
}

/** What a drive would hold if it were written now; of the password only that there is one. */
export async function cloudInitPart(
  needs: CloudInitNeeds,
  vmid: Vmid,
  options: Options,
  part: keyof Seed['parts'],
): Promise<string> {
  const { parts } = await seedFor(needs, vmid, part === 'user' ? withoutSecrets(options) : options)
  return Buffer.from(parts[part]).toString('utf8')
}
