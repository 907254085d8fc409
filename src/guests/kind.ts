/** Kinds of guests: virtual machines and containers, in Proxmox VE's words, and what messages call them. */
export const guestKinds = ['qemu', 'lxc'] as const
export type GuestKind = (typeof guestKinds)[number]

export const nounOf: Readonly<Record<GuestKind, string>> = { qemu: 'VM', lxc: 'CT' }

/** Folder of configurations in the messages clients take for "gone". */
export const folderOf: Readonly<Record<GuestKind, string>> = { qemu: 'qemu-server', lxc: 'lxc' }

export function isGuestKind(text: string): text is GuestKind {
  return text === 'qemu' || text === 'lxc'
}
