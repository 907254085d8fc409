/**
 * What keeps a running guest in the process it is in: parts of it whose state is not in QEMU, or which only one process
 * can have. Said before anything is begun, each with its reason and what to do.
 */
import type { Options } from '../config.ts'
import { hostpcisOf } from './hostpci.ts'
import { nodePortsOf } from './serial.ts'
import { tpmDrive } from './tpm.ts'
import { usbNames } from './usb.ts'
import { foldersOf } from './virtiofs.ts'

export interface Obstacle {
  /** The option, or what else it is about. */
  readonly what: string
  readonly reason: string
  readonly remedy: string
}

/** Of a guest that runs with these options. */
export function obstaclesIn(options: Options): Obstacle[] {
  const ports = nodePortsOf(options).filter(({ name }) => name !== 'rng0')
  return [
    ...foldersOf(options).map(({ name }) =>
      removable(name, 'a folder of the node is served by a program whose state cannot be sent'),
    ),
    ...hostpcisOf(options).map(({ name }) =>
      removable(name, 'a PCI device of the node belongs to one process, and its state is its own'),
    ),
    ...usbNames(options).map((name) =>
      removable(name, 'a USB device, of the node or of a viewer, belongs to one process'),
    ),
    ...ports.map(({ name, path }) => removable(name, `the node's '${path}' belongs to one process`)),
    ...lasting(options, 'ivshmem', 'memory it shares with others is not sent'),
    ...lasting(options, 'amd-sev', 'nobody but the guest can read its memory, so nobody can send it'),
    ...lasting(options, 'intel-tdx', 'nobody but the guest can read its memory, so nobody can send it'),
    ...lasting(options, tpmDrive, 'its TPM keeps its state in a file that only one program may have open'),
  ]
}

function removable(what: string, reason: string): Obstacle {
  return { what, reason, remedy: `Take ${what} out first, or stop the guest and start it anew instead.` }
}

function lasting(options: Options, what: string, reason: string): Obstacle[] {
  if (options[what] === undefined) return []
  return [{ what, reason, remedy: 'Stop the guest and start it anew instead.' }]
}
