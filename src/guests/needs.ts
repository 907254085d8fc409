/** What guests need of storage and network, and nothing more; the services of those names fit. */
import type { Vmid, VolumeId } from '#base/ids.ts'
import type { TreeLayers } from '#storage/plugin.ts'
import type { CpuModel } from './qemu/cpu.ts'
import type { UsbWish } from './qemu/usb.ts'

export interface GuestStorage {
  readonly location: (volid: VolumeId) => Promise<{ path: string; format: string; sizeBytes: number }>
  readonly layers: (
    volid: VolumeId,
  ) => Promise<{ layers: readonly { path: string; format: string }[]; sizeBytes: number }>
  readonly describe: (volid: VolumeId) => Promise<{ readonly format: string }>
  readonly snapshots: (volid: VolumeId) => Promise<{ readonly pathOf: (tag: string) => string | undefined }>
  /** How the files of a container are shown: as a folder, or as layers of which the upper one takes what is written. */
  readonly treeLayers: (volid: VolumeId) => Promise<TreeLayers>
  readonly giveTo: (volid: VolumeId, uid: number) => Promise<void>
  readonly rewrite: (volid: VolumeId, content: { readonly source: string; readonly sizeBytes: number }) => Promise<void>
}

export interface GuestNetwork {
  readonly bridgeNames: () => Promise<readonly string[]>
  readonly plug: (card: {
    vmid: Vmid
    nic: string
    mac: string
    bridge: string
    netns?: string
    tag?: number | undefined
    trunks?: string | undefined
    rate?: number | undefined
  }) => Promise<{ tap: string; fd: number }>
  /** A cable for a card of a container: the node's end, and the one the container takes. */
  readonly plugCable: (card: {
    vmid: Vmid
    nic: string
    mac: string
    bridge: string
    netns?: string
    tag?: number | undefined
    trunks?: string | undefined
    rate?: number | undefined
    isDown?: boolean | undefined
    mtu?: number | undefined
  }) => Promise<{ tap: string; cable: string }>
  /** Another bridge, or other VLANs, for a card that is plugged in. */
  readonly move: (card: {
    vmid: Vmid
    nic: string
    mac: string
    bridge: string
    tag?: number | undefined
    trunks?: string | undefined
    rate?: number | undefined
    isDown?: boolean | undefined
    mtu?: number | undefined
  }) => Promise<void>
  readonly unplug: (card: { vmid: Vmid; nic?: string; netns?: string }) => Promise<void>
  /** Second cables of the cards of a guest that another process is to take over. */
  readonly spares: {
    readonly plug: (vmid: Vmid, nic: string) => Promise<{ tap: string; fd: number }>
    readonly use: (vmid: Vmid) => Promise<void>
    readonly keep: (vmid: Vmid) => Promise<void>
    readonly drop: (vmid: Vmid) => Promise<void>
  }
}

/** What the owner of the cluster gave names to. */
export interface GuestDevices {
  /** USB devices the mapping means on this node; undefined when there is none of that name. */
  readonly usbMapping: (name: string) => Promise<readonly UsbWish[] | undefined>
  /** Sets of PCI addresses the mapping means on this node, each as good as the other. */
  readonly pciMapping: (name: string) => Promise<readonly (readonly string[])[] | undefined>
  /** Path of the folder the mapping means on this node. */
  readonly directoryMapping: (name: string) => Promise<string | undefined>
  readonly cpuModel: (name: string) => Promise<CpuModel | undefined>
}
