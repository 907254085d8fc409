/** Where a running guest shows itself: its screen, by VNC and by SPICE, its serial ports. Each is a socket its QEMU listens on. */
import { join } from 'node:path'
import type { Socket } from 'node:net'
import { Fault } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { connectToProcess, type Listener } from '#host/programs/unix-peer.ts'
import type { Options } from '../config.ts'
import type { MachineRecord } from '../run-record.ts'
import { serialCount, serialFiles } from './serial.ts'
import { spiceSocket } from './spice.ts'
import { isHeadless, screenSocket } from './vga.ts'

export interface ConsolePlace {
  readonly vmid: Vmid
  readonly runDir: string
  readonly listener: Listener
  readonly record: MachineRecord
}

/** @throws Fault `conflict` when the guest was started without a screen */
export async function connectScreen({ vmid, runDir, listener, record }: ConsolePlace): Promise<Socket> {
  requireScreen(vmid, record.options)
  return connectToProcess(join(runDir, screenSocket), listener)
}

export function requireScreen(vmid: Vmid, options: Options): void {
  if (!isHeadless(options)) return
  throw new Fault('conflict', `VM ${vmid} has no screen: its display is '${options.vga ?? 'none'}'`, {
    remedy: 'Open its serial console (termproxy), or give it a display and start it again.',
  })
}

/** @throws Fault `conflict` when the guest was started without SPICE */
export async function connectSpice({ vmid, runDir, listener, record }: ConsolePlace): Promise<Socket> {
  requireSpice(vmid, record)
  return connectToProcess(join(runDir, spiceSocket), listener)
}

/** @returns the certificate viewers meet, which no other run of a guest has */
export function requireSpice(vmid: Vmid, { options, spiceCertificate }: MachineRecord): string {
  if (spiceCertificate !== undefined) return spiceCertificate
  throw new Fault('conflict', `VM ${vmid} has no SPICE: its display is '${options.vga ?? 'std'}'`, {
    remedy: `Give it one that has and start it again: hako vm set ${vmid} --vga qxl`,
  })
}

export async function connectSerial({ runDir, listener }: ConsolePlace, index: number): Promise<Socket> {
  return connectToProcess(join(runDir, serialFiles(index).socket), listener)
}

/**
 * The serial port a terminal means: the one that was named, the one that is the display, or the first.
 * @throws Fault `conflict` when there is none, in the words of `qm terminal`
 */
export function serialPortOf(vmid: Vmid, options: Options, wanted?: string): number {
  const display = /^serial\d/.exec(options.vga ?? '')?.[0]
  const names = Array.from({ length: serialCount }, (_, index) => `serial${index}`)
  const name = wanted ?? display ?? names.find((one) => options[one] === 'socket')
  if (name !== undefined && options[name] === 'socket') return names.indexOf(name)
  const detail = wanted === undefined ? '' : ` '${wanted}'`
  throw new Fault('conflict', `unable to find a serial interface${detail}`, {
    remedy: `Add one and start the guest again: hako vm set ${vmid} --${wanted ?? 'serial0'} socket`,
  })
}
