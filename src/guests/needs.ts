/** What guests need of storage and network, and nothing more; the services of those names fit. */
import type { Vmid, VolumeId } from '#base/ids.ts'

export interface GuestStorage {
  readonly location: (volid: VolumeId) => Promise<{ path: string; format: string; sizeBytes: number }>
  readonly layers: (
    volid: VolumeId,
  ) => Promise<{ layers: readonly { path: string; format: string }[]; sizeBytes: number }>
  readonly giveTo: (volid: VolumeId, uid: number) => Promise<void>
  readonly rewrite: (volid: VolumeId, content: { readonly source: string; readonly sizeBytes: number }) => Promise<void>
}

export interface GuestNetwork {
  readonly plug: (card: {
    vmid: Vmid
    nic: string
    mac: string
    bridge: string
    netns?: string
  }) => Promise<{ tap: string; fd: number }>
  readonly unplug: (card: { vmid: Vmid; nic?: string; netns?: string }) => Promise<void>
}
