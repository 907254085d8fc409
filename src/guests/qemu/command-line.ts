/**
 * A configuration and the facts of this start become QEMU's command line. Pure: golden files hold it still.
 *
 * Order matters to QEMU only where one argument names another's id; here it is chosen for the reader:
 * identity, machine, processor, memory, console, devices by family.
 */
import type { Options } from '../config.ts'
import { nameOf } from '../config.ts'
import { agentToArgv } from './agent.ts'
import { deviceToArgv, keyed } from './argument.ts'
import { audioToArgv } from './audio.ts'
import { balloonToArgv } from './balloon.ts'
import { bootIndexes } from './boot.ts'
import type { CpuModel } from './cpu.ts'
import { cpuToArgv, topologyToArgv } from './cpu.ts'
import type { DriveFile } from './drive-argv.ts'
import { drivesToArgv } from './drive-argv.ts'
import { flashOf } from './firmware.ts'
import { ivshmemToArgv } from './ivshmem.ts'
import type { Accelerator } from './machine.ts'
import { acceleratorFor, machineKindOf, machineToArgv } from './machine.ts'
import { memoryToArgv } from './numa.ts'
import { nicsOf, nicToArgv } from './nic.ts'
import { bridgesToArgv } from './pci.ts'
import { rngToArgv } from './rng.ts'
import { firmwareLogToArgv, serialToArgv } from './serial.ts'
import { smbiosToArgv } from './smbios.ts'
import { tpmToArgv } from './tpm.ts'
import { tabletToArgv, vgaToArgv } from './vga.ts'
import type { UsbPlace } from './usb.ts'
import { usbControllerToArgv, usbDevice } from './usb.ts'
import { foldersToArgv } from './virtiofs.ts'
import { watchdogToArgv } from './watchdog.ts'

export interface StartFacts {
  readonly vmid: number
  /** What this node offers; the guest may still ask for emulation. */
  readonly accelerator: Accelerator
  /** Sockets and logs of this guest; writable for its QEMU. */
  readonly runDir: string
  /** File of each drive that has one. */
  readonly files: Readonly<Record<string, DriveFile>>
  /** Descriptor of the open tap of each bridged card, as QEMU sees it. */
  readonly taps: Readonly<Record<string, number>>
  /** Descriptor of each of the node's ports that a serial or parallel port of the guest is. */
  readonly ports?: Readonly<Record<string, number>>
  /** Where each of the node's USB devices was found. */
  readonly usb?: Readonly<Record<string, UsbPlace>>
  /** The owner's own processor model, when the guest has one. */
  readonly cpuModel?: CpuModel | undefined
}

/** Two control sockets: QEMU serves one client on each, so a long job must not keep out a short question. */
export const qmpSockets = { short: 'qmp.sock', long: 'qmp-long.sock' } as const

export function configToArgv(options: Options, facts: StartFacts): string[] {
  const { vmid, runDir } = facts
  const machine = machineKindOf(options)
  const accelerator = acceleratorFor(options, facts.accelerator)
  const flash = flashOf(options, machine, runDir)
  return [
    '-name',
    keyed(nameOf(options, vmid), { 'debug-threads': true }),
    '-S',
    '-nodefaults',
    '-no-user-config',
    '-sandbox',
    'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny',
    ...Object.values(qmpSockets).flatMap((name) => [
      '-qmp',
      keyed(`unix:${runDir}/${name}`, { server: true, wait: false }),
    ]),
    ...machineToArgv(options, accelerator, flash.machine),
    ...flash.argv,
    ...cpuToArgv(options, accelerator, facts.cpuModel),
    ...topologyToArgv(options),
    ...memoryToArgv(options),
    '-boot',
    'strict=on',
    ...smbiosToArgv(options),
    ...vgaToArgv(options, machine, runDir),
    ...firmwareLogToArgv(runDir),
    ...serialToArgv(options, runDir, facts.ports),
    ...bridgesToArgv(machine),
    ...balloonToArgv(options, machine),
    ...tabletToArgv(options, machine),
    ...usbControllerToArgv(options, machine),
    ...Object.entries(facts.usb ?? {}).flatMap(([name, place]) => deviceToArgv(usbDevice(name, place))),
    ...audioToArgv(options, machine),
    ...ivshmemToArgv(options, machine, vmid),
    ...rngToArgv(options, machine, facts.ports?.rng0),
    ...watchdogToArgv(options, machine),
    ...tpmToArgv(options, runDir),
    ...foldersToArgv(options, machine, runDir),
    ...agentToArgv(options, machine, `${runDir}/agent.sock`),
    ...drivesToArgv(options, machine, facts.files),
    ...cardsToArgv(options, facts.taps),
    ...words(options.args ?? ''),
  ]
}

function cardsToArgv(options: Options, taps: Readonly<Record<string, number>>): string[] {
  const indexes = bootIndexes(options)
  const machine = machineKindOf(options)
  return nicsOf(options).flatMap((nic) => nicToArgv(nic, machine, taps[nic.name], indexes.get(nic.name)))
}

/** Splits root's own `args` at spaces; quotes keep words together. No shell ever sees them. */
export function words(text: string): string[] {
  return [...text.matchAll(/(?:[^\s"']+|"[^"]*"|'[^']*')+/g)].map(([word]) =>
    word.replace(
      /"([^"]*)"|'([^']*)'/g,
      (_, double: string | undefined, single: string | undefined) => double ?? single ?? '',
    ),
  )
}
