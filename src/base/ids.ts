/** Branded identifiers, so that one cannot stand in for another. Parsing is the only way in. */
import { invalid } from './fault.ts'

declare const brand: unique symbol
type Branded<Base, Name extends string> = Base & { readonly [brand]: Name }

/** A guest's number, 100 to 999999999. */
export type Vmid = Branded<number, 'Vmid'>
/** `storage:name`, for instance `local:100/vm-100-disk-0.qcow2`. */
export type VolumeId = Branded<string, 'VolumeId'>
/** Lower-case hexadecimal SHA-256 of content: 64 characters. */
export type Digest = Branded<string, 'Digest'>
/** A task's identifier, see `tasks/upid.ts`. */
export type UpidText = Branded<string, 'Upid'>
/** `name@realm`, or `name@realm!token` where a token acts. */
export type AuthId = Branded<string, 'AuthId'>

export function asVmid(value: unknown): Vmid {
  const number = typeof value === 'number' ? value : Number(value)
  if (!Number.isInteger(number) || number < 100 || number > 999_999_999) {
    throw invalid({ vmid: 'invalid format - value is not a VM id between 100 and 999999999' })
  }
  return number as Vmid
}

export function asVolumeId(text: string): VolumeId {
  if (!/^[a-zA-Z][a-zA-Z0-9._-]*[a-zA-Z0-9]:[^\s:][^\s]*$/.test(text)) {
    throw invalid({ volume: `invalid format - '${text}' is not 'storage:volume'` })
  }
  return text as VolumeId
}

/** The two parts of a volume id: `local` and `100/vm-100-disk-0.raw`. */
export function splitVolumeId(volume: VolumeId): { storage: string; name: string } {
  const at = volume.indexOf(':')
  return { storage: volume.slice(0, at), name: volume.slice(at + 1) }
}

export function asDigest(text: string): Digest {
  if (!/^[0-9a-f]{64}$/.test(text))
    throw invalid({ digest: 'invalid format - not a SHA-256 in lower-case hexadecimal' })
  return text as Digest
}
