/**
 * One QEMU process for a guest, with what it needs of the node: its run directory, its files, its cables and the
 * programs beside it. It has not run an instruction of the guest when this returns.
 */
import { closeSync, openSync } from 'node:fs'
import type { Vmid } from '#base/ids.ts'
import { asFileFault } from '#host/files.ts'
import type { Options } from '../config.ts'
import type { GuestStorage } from '../needs.ts'
import type { ProcessName } from '../run-record.ts'
import { logsBeside, startBeside } from './beside.ts'
import { configToArgv } from './command-line.ts'
import { passingFiles } from './firmware.ts'
import { launch, prepareRunDir, qemuLog } from './launch.ts'
import type { Accelerator } from './machine.ts'
import type { FoundDevices } from './node-devices.ts'
import { openDrives } from './open-drives.ts'
import { nodePortsOf } from './serial.ts'
import { makeSpiceTls } from './spice-tls.ts'

/** A card with its cable. */
export interface CabledCard {
  readonly nic: string
  readonly tap: string
  /** Open in this process; closed by whoever starts QEMU with it. */
  readonly fd: number
}

export interface NewProcess {
  readonly vmid: Vmid
  readonly uid: number
  /** As it is to be; with `machine` pinned where another state is to be loaded. */
  readonly options: Options
  readonly runDir: string
  readonly storage: GuestStorage
  readonly accelerator: Accelerator
  readonly devices: FoundDevices
  readonly cards: readonly CabledCard[]
  /** Sockets of what is below drives. */
  readonly below?: Readonly<Record<string, string>>
  readonly netns?: string | undefined
  /** It waits for the state of another process. */
  readonly isIncoming?: boolean
  /** Directory of the process whose logs it goes on writing. */
  readonly logsFrom?: string
  /** Puts a program beside QEMU under the guest's limits. */
  readonly confine: (pid: number) => Promise<void>
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
}

/** What a process inherits comes after its standard input, output and error. */
const firstDescriptor = 3

/** @throws Fault `missing`, `failed` with QEMU's words. The descriptors of the cards are closed in any case. */
export async function newProcess(request: NewProcess): Promise<{ process: ProcessName; spiceCertificate?: string }> {
  const { vmid, uid, options, runDir, storage, cards, below = {}, netns, timeoutMs, signal } = request
  const { groups, ...devices } = request.devices
  const taps = Object.fromEntries(cards.map(({ nic }, position) => [nic, firstDescriptor + position]))
  const descriptors = cards.map(({ fd }) => fd)
  const inherit = (path: string, flags: string) => {
    descriptors.push(openFile(path, flags))
    return firstDescriptor + descriptors.length - 1
  }
  try {
    const place = { storage, vmid, uid }
    const files = await openDrives(options, { ...place, below, handOver: async (path) => inherit(path, 'r') })
    const ports = Object.fromEntries(nodePortsOf(options).map(({ name, path }) => [name, inherit(path, 'r+')]))
    const { accelerator } = request
    const argv = configToArgv(options, { vmid, accelerator, runDir, files, taps, ports, ...devices })
    if (request.isIncoming) argv.push('-incoming', 'defer')
    const { spiceCertificate, files: keys } = await makeSpiceTls(vmid, options)
    const content = { logs: [qemuLog, ...logsBeside(options)], copies: passingFiles(options), files: keys }
    await prepareRunDir(runDir, uid, { ...content, logsFrom: request.logsFrom })
    const beside = { ...place, options, runDir, folders: devices.folders, timeoutMs, signal }
    await startBeside(beside, request.confine)
    const netnsPath = netns === undefined ? undefined : `/run/netns/${netns}`
    const { affinity } = options
    const process = await launch({ argv, uid, accelerator, netnsPath, runDir, descriptors, affinity, groups })
    return { process, ...(spiceCertificate === undefined ? {} : { spiceCertificate }) }
  } finally {
    for (const fd of descriptors) closeSync(fd)
  }
}

/** @throws Fault `missing` */
function openFile(path: string, flags: string): number {
  try {
    return openSync(path, flags)
  } catch (cause) {
    throw asFileFault(cause, path)
  }
}
