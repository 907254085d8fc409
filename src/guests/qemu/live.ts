/**
 * Changes a guest while it runs.
 *
 * Each act is whole or leaves nothing: what it made before it failed is taken out again. What became of the guest is
 * told after every act, so that a process that dies on the way leaves at most one thing nobody knows of; `present`
 * finds it.
 */
import { closeSync, openSync } from 'node:fs'
import { waitFor } from '#base/clock.ts'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import type { Vmid } from '#base/ids.ts'
import { MiB } from '#base/bytes.ts'
import type { QmpClient } from '#host/qemu/qmp.ts'
import type { Options } from '../config.ts'
import type { GuestNetwork, GuestStorage } from '../needs.ts'
import { deviceToCommand, type DeviceSpec } from './argument.ts'
import { blockNodes, removeBlockNode } from './block-nodes.ts'
import { topologyOf } from './cpu.ts'
import { blockNode } from './drive-argv.ts'
import { controllerOf, driveDevice, nodeNameOf, threadOf } from './drive-device.ts'
import { throttleOf } from './drive-limits.ts'
import type { BusDrive } from './drive.ts'
import { driveNameParts, driveOf, isFirmwareDrive, isOnBus } from './drive.ts'
import type { LiveAct } from './live-plan.ts'
import { machineKindOf } from './machine.ts'
import { memoryMiBOf } from './memory.ts'
import type { Nic } from './nic.ts'
import { nicDevice, nicOf } from './nic.ts'
import { memoryNodesOf, modulesFor } from './numa.ts'
import { openDrive } from './open-drives.ts'
import { hasFolders } from './virtiofs.ts'

export interface LiveContext {
  readonly vmid: Vmid
  readonly uid: number
  readonly monitor: QmpClient
  readonly storage: GuestStorage
  readonly network: GuestNetwork
  /** As it runs now. */
  readonly running: Options
  /** Namespace its cards are in. */
  readonly netns: string | undefined
  /** Sets the limits of the guest's control group from these options. */
  readonly setShares: (options: Options) => Promise<void>
  readonly setAffinity: (list: string | undefined) => Promise<void>
  /** Told which tap a card has from now on, or that it has none. */
  readonly onTap: (nic: string, tap: string | undefined) => void
  readonly signal?: AbortSignal | undefined
}

/** How long a guest may take to let go of a device. */
const releaseLimitMs = 10_000

/** Does one act. @throws Fault with QEMU's words; then the guest is as before */
export async function doLive(context: LiveContext, { kind, name, value = '' }: LiveAct): Promise<void> {
  const { monitor, running } = context
  switch (kind) {
    case 'nothing':
      return
    case 'plug-drive':
      return plugDrive(context, onBus(name, value))
    case 'unplug-drive':
      return unplugDrive(context, name)
    case 'change-disc':
      return changeDisc(context, onBus(name, value))
    case 'limit-drive':
      return limitDrive(monitor, onBus(name, value))
    case 'plug-card':
      return plugCard(context, nicOf(name, value))
    case 'unplug-card':
      return unplugCard(context, name)
    case 'move-card':
      return moveCard(context, nicOf(name, value))
    case 'set-cable':
      await monitor.execute('set_link', { name, up: !nicOf(name, value).isLinkDown })
      return
    case 'plug-processors':
    case 'unplug-processors':
      return setProcessors(context, Number(value))
    case 'plug-memory':
      return plugMemory(context, { ...running, memory: value })
    case 'set-balloon':
      await monitor.execute('balloon', { value: balloonMiB(running, value) * MiB })
      return
    case 'set-shares':
      return context.setShares(withValue(running, name, value))
    case 'set-affinity':
      return context.setAffinity(value === '' ? undefined : value)
    case 'unplug-tablet':
      return removeDevice(context, 'tablet')
    default:
      return kind satisfies never
  }
}

/** With fixed shares of 0 the balloon is the owner's to set; otherwise it is the least, and the guest has all. */
function balloonMiB(running: Options, value: string): number {
  return running.shares === '0' && value !== '' ? Number(value) : memoryMiBOf(running)
}

function withValue(options: Options, name: string, value: string): Options {
  const { [name]: _, ...rest } = options
  return value === '' ? rest : { ...rest, [name]: value }
}

function onBus(name: string, text: string): BusDrive {
  const drive = driveOf(name, text)
  if (!isOnBus(drive)) throw new Error(`'${name}' is on no bus`)
  return drive
}

/** Drives and cards QEMU has now, whoever remembers them. */
export async function present(monitor: QmpClient): Promise<string[]> {
  const devices = (await peripherals(monitor)).filter((name) => /^net\d+$/.test(name) || driveNameParts(name))
  const drives = (await blockNodes(monitor)).flatMap((name) => /^drive-(.+)$/.exec(name)?.[1] ?? [])
  return [...new Set([...devices, ...drives.filter((name) => !isFirmwareDrive(name))])]
}

async function peripherals(monitor: QmpClient): Promise<string[]> {
  const found = await monitor.execute<readonly { readonly name: string }[]>('qom-list', { path: '/machine/peripheral' })
  return found.map(({ name }) => name)
}

async function addDevice({ monitor }: LiveContext, spec: DeviceSpec): Promise<void> {
  await monitor.execute('device_add', deviceToCommand(spec))
}

/** Asks the guest to let go of a device, and returns when it has. Harmless when there is none. */
async function removeDevice({ monitor, signal }: LiveContext, id: string): Promise<void> {
  const isGone = async () => !(await peripherals(monitor)).includes(id)
  if (await isGone()) return
  try {
    await monitor.execute('device_del', { id })
  } catch (cause) {
    // Already asked before: the guest is still at it. Or it has gone meanwhile.
    if (!isFault(cause, 'failed') || !/in the process of unplug|not found/.test(cause.message)) throw cause
  }
  try {
    await waitFor(isGone, { what: `release of ${id}`, timeoutMs: releaseLimitMs, everyMs: 20, signal })
  } catch (cause) {
    if (!isFault(cause, 'timeout')) throw cause
    throw new Fault('timeout', `the guest did not let go of it within ${releaseLimitMs / 1000} s`, { cause })
  }
}

async function removeObject(monitor: QmpClient, id: string): Promise<void> {
  const objects = await monitor.execute<readonly { readonly name: string }[]>('qom-list', { path: '/objects' })
  if (objects.some(({ name }) => name === id)) await monitor.execute('object-del', { id })
}

/** Opens the drive's file as a node of QEMU. False for a drive without a disc. */
async function openNode(context: LiveContext, drive: BusDrive): Promise<boolean> {
  const { monitor } = context
  // What an act that was interrupted left under this name.
  await closeNodes(monitor, drive.name)
  const file = await openDrive(drive, { ...context, handOver: (path) => handOver(monitor, path) })
  if (file) await monitor.execute('blockdev-add', blockNode(drive, file))
  return file !== undefined
}

/** The drive's node, and the one below it after the disk was moved. */
async function closeNodes(monitor: QmpClient, drive: string): Promise<void> {
  await removeBlockNode(monitor, nodeNameOf(drive))
  for (const name of await blockNodes(monitor))
    if (name.startsWith(`move-${drive}-`)) await removeBlockNode(monitor, name)
}

async function handOver(monitor: QmpClient, path: string): Promise<number> {
  const fd = openSync(path, 'r')
  try {
    const reply = await monitor.execute<{ 'fdset-id': number }>('add-fd', {}, { descriptor: fd })
    return reply['fdset-id']
  } finally {
    closeSync(fd)
  }
}

async function plugDrive(context: LiveContext, drive: BusDrive): Promise<void> {
  const { monitor, running } = context
  const machine = machineKindOf(running)
  await using undo = new AsyncDisposableStack()
  undo.defer(() => closeNodes(monitor, drive.name))
  const hasFile = await openNode(context, drive)
  const controller = controllerOf(drive, running, machine)
  const id = String(controller?.device.properties.id)
  if (controller && !(await peripherals(monitor)).includes(id)) {
    undo.defer(() => removeDevice(context, id))
    if (controller.thread !== undefined) await addThread(monitor, controller.thread, undo)
    await addDevice(context, controller.device)
  }
  const thread = threadOf(drive)
  if (thread !== undefined) await addThread(monitor, thread, undo)
  await addDevice(context, driveDevice(drive, running, machine, { hasFile, bootindex: undefined }))
  undo.defer(() => removeDevice(context, drive.name))
  if (throttleOf(drive)) await limitDrive(monitor, drive)
  undo.move()
}

async function addThread(monitor: QmpClient, id: string, undo: AsyncDisposableStack): Promise<void> {
  await removeObject(monitor, id)
  await monitor.execute('object-add', { 'qom-type': 'iothread', id })
  undo.defer(() => removeObject(monitor, id))
}

async function unplugDrive(context: LiveContext, name: string): Promise<void> {
  const { monitor, running } = context
  await removeDevice(context, name)
  await closeNodes(monitor, name)
  // A controller of the drive's own goes with it; one that others share stays.
  const index = driveNameParts(name)?.index ?? 0
  if (name.startsWith('scsi') && running.scsihw === 'virtio-scsi-single') await removeDevice(context, `scsihw${index}`)
  await removeObject(monitor, `iothread-${name}`)
}

async function limitDrive(monitor: QmpClient, drive: BusDrive): Promise<void> {
  const none = { id: drive.name, bps: 0, bps_rd: 0, bps_wr: 0, iops: 0, iops_rd: 0, iops_wr: 0 }
  await monitor.execute('block_set_io_throttle', throttleOf(drive) ?? none)
}

/** Opens the tray whether or not the guest has locked it, as a paper clip does. */
async function changeDisc(context: LiveContext, drive: BusDrive): Promise<void> {
  const { monitor } = context
  const id = drive.name
  await monitor.execute('blockdev-open-tray', { id, force: true })
  await monitor.execute('blockdev-remove-medium', { id })
  if (await openNode(context, drive)) {
    await monitor.execute('blockdev-insert-medium', { id, 'node-name': nodeNameOf(id) })
  }
  await monitor.execute('blockdev-close-tray', { id })
}

async function plugCard(context: LiveContext, nic: Nic): Promise<void> {
  const { monitor, network, vmid, netns, running, onTap } = context
  const { name, bridge, mac, tag, trunks, rate } = nic
  await using undo = new AsyncDisposableStack()
  if (bridge === undefined) await monitor.execute('netdev_add', { type: 'user', id: name })
  else {
    const place = netns === undefined ? { tag, trunks, rate } : { netns }
    const { tap, fd } = await network.plug({ vmid, nic: name, mac, bridge, ...place })
    undo.defer(() => network.unplug({ vmid, nic: name, ...(netns === undefined ? {} : { netns }) }))
    onTap(name, tap)
    try {
      await monitor.execute('getfd', { fdname: name }, { descriptor: fd })
    } finally {
      closeSync(fd)
    }
    await monitor.execute('netdev_add', { type: 'tap', id: name, fd: name, vhost: false })
  }
  undo.defer(() => monitor.execute('netdev_del', { id: name }).then(() => {}))
  await addDevice(context, nicDevice(nic, machineKindOf(running)))
  if (nic.isLinkDown) await monitor.execute('set_link', { name, up: false })
  undo.move()
}

async function unplugCard(context: LiveContext, name: string): Promise<void> {
  const { monitor, network, vmid, netns } = context
  await removeDevice(context, name)
  try {
    await monitor.execute('netdev_del', { id: name })
  } catch (cause) {
    if (!isFault(cause, 'failed') || !/not found/.test(cause.message)) throw cause
  }
  await network.unplug({ vmid, nic: name, ...(netns === undefined ? {} : { netns }) })
  context.onTap(name, undefined)
}

async function moveCard({ monitor, network, vmid }: LiveContext, nic: Nic): Promise<void> {
  const { name, mac, bridge = '', tag, trunks, rate } = nic
  await network.move({ vmid, nic: name, mac, bridge, tag, trunks, rate })
  await monitor.execute('set_link', { name, up: !nic.isLinkDown })
}

interface ProcessorSlot {
  readonly type: string
  readonly props: Readonly<Record<string, number>>
  readonly 'qom-path'?: string
}

async function setProcessors(context: LiveContext, wanted: number): Promise<void> {
  const { monitor, running } = context
  const slots = (await monitor.execute<readonly ProcessorSlot[]>('query-hotpluggable-cpus')).toReversed()
  const plugged = slots.filter((slot) => slot['qom-path'] !== undefined).length
  const { maximum } = topologyOf(running)
  for (let number = plugged; number < Math.min(wanted, maximum); number += 1) {
    const slot = slots[number]
    if (slot) await addDevice(context, { driver: slot.type, properties: { id: `cpu${number}`, ...slot.props } })
  }
  if (plugged > wanted && !(await monitor.execute<{ enabled: boolean }>('query-kvm')).enabled) {
    // QEMU would free it and go on using it: it dies at one of the next changes of the guest's memory map.
    throw new Fault('failed', 'under software emulation a processor leaves with the next start')
  }
  // Those the guest started with cannot leave; each is asked in turn, the last first.
  for (let number = plugged - 1; number >= wanted; number -= 1) {
    if (!(await peripherals(monitor)).includes(`cpu${number}`)) {
      throw new Fault('failed', `processor ${number} was there from the start and cannot be taken out`)
    }
    await removeDevice(context, `cpu${number}`)
  }
}

async function plugMemory(context: LiveContext, options: Options): Promise<void> {
  const { monitor } = context
  const wanted = modulesFor(memoryMiBOf(options), memoryNodesOf(options)) ?? []
  const there = await peripherals(monitor)
  const backend = hasFolders(context.running)
    ? { 'qom-type': 'memory-backend-memfd', share: true }
    : { 'qom-type': 'memory-backend-ram' }
  // The guest's limit must know of it first.
  await context.setShares(options)
  for (const { name, sizeMiB, node } of wanted.filter((module) => !there.includes(module.name))) {
    const memdev = `mem-${name}`
    await removeObject(monitor, memdev)
    await monitor.execute('object-add', { ...backend, id: memdev, size: sizeMiB * MiB })
    try {
      await addDevice(context, { driver: 'pc-dimm', properties: { id: name, memdev, node } })
    } catch (cause) {
      await removeObject(monitor, memdev)
      throw new Fault('failed', `memory could not be added: ${messageOf(cause)}`, { cause })
    }
  }
}
