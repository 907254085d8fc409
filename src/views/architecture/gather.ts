/**
 * The parts of a node as they are now. Every state is looked for, not remembered: a process by its process, a storage by
 * what it answers. What cannot be found out is `unknown`, and never left out.
 */
import { humanSize } from '#base/bytes.ts'
import { messageOf } from '#base/fault.ts'
import { productVersion } from '#base/product.ts'
import { splitList } from '#base/schema/formats.ts'
import { dirname } from 'node:path'
import type { BackupJob } from '#cluster/backup-jobs.ts'
import { isEnabled } from '#cluster/backup-jobs.ts'
import { mountedVolumes, mountsOf } from '#guests/lxc/mountpoint.ts'
import { nicsOf as cardsOfContainer } from '#guests/lxc/nic.ts'
import type { GuestStatus } from '#guests/guest.ts'
import { volumesIn } from '#guests/qemu/drive.ts'
import { nicsOf } from '#guests/qemu/nic.ts'
import { type BlockDevice, blockDevices } from '#host/disks/block-devices.ts'
import { accelerator } from '#host/qemu/kvm.ts'
import { lxcfsHasDied } from '#host/lxc/lxcfs.ts'
import { mountPoints } from '#host/disks/mount.ts'
import { linkRows } from '#host/network/network-state.ts'
import { installedPackages } from '#host/system/packages.ts'
import { countProcessesOf } from '#host/programs/proc.ts'
import type { NodeServices } from '#services.ts'
import { splitVolumeId } from '#base/ids.ts'
import { visibleGuests } from '../guest-list.ts'
import { nodeStorages, type StorageItem } from '../storage-list.ts'
import type { May } from '../volume-access.ts'
import { type Edge, type EdgeType, type Graph, type Part, type PartKind, partOf, type PartState } from './graph.ts'

type Sources = Pick<
  NodeServices,
  'settings' | 'host' | 'node' | 'network' | 'storage' | 'guests' | 'backupJobs' | 'pools' | 'tasks' | 'log'
>

/** All parts and edges, as far as the caller may see them. */
export async function gatherParts(sources: Sources, may: May): Promise<Graph> {
  const look = lookWith(sources)
  const graphs = await Promise.all([
    look(['processors', 'memory'], () => machineOf(sources)),
    look(['disk'], () => disksOf(sources)),
    look(['card'], () => cardsOf(sources)),
    look(['kernel', 'virtualization', 'qemu', 'lxc', 'lxcfs', 'daemon', 'front', 'state', 'task'], () =>
      hostOf(sources),
    ),
    look(['storage', 'datastore'], () => storagesOf(sources, may)),
    look(['bridge'], () => bridgesOf(sources)),
    look(['vm', 'ct'], () => guestsOf(sources, may)),
  ])
  return { parts: graphs.flatMap(({ parts }) => parts), edges: graphs.flatMap(({ edges }) => edges) }
}

const edge = (from: string, to: string, type: EdgeType): Edge => ({ from, to, type })

/** What cannot be looked at is there as unknown, and nobody is kept from the rest. */
function lookWith({ log }: Sources) {
  return async (kinds: readonly PartKind[], look: () => Promise<Graph>): Promise<Graph> => {
    try {
      return await look()
    } catch (cause) {
      log.warn('a part of the node cannot be looked at', { kinds, cause })
      return { parts: kinds.map((kind) => partOf(kind, undefined, unknown(messageOf(cause)))), edges: [] }
    }
  }
}

const unknown = (detail: string) => ({ state: 'unknown' as const, detail })

// Hardware

async function machineOf({ node }: Sources): Promise<Graph> {
  const [{ threads, model }, memory] = [await node.processor(), await node.memory()]
  const detail = `${threads} x ${model}`
  return {
    parts: [
      partOf('processors', undefined, { state: 'ok', detail }),
      partOf('memory', undefined, { state: 'ok', detail: humanSize(memory.totalBytes) }),
    ],
    edges: [],
  }
}

async function disksOf({ host }: Sources): Promise<Graph> {
  const parts = (await wholeDisks(host)).map((disk) => {
    const detail = [humanSize(disk.sizeBytes), disk.model].filter((text) => text !== undefined).join(', ')
    return partOf('disk', nameOfDevice(disk), { state: 'ok', detail })
  })
  return { parts, edges: [] }
}

async function cardsOf({ host }: Sources): Promise<Graph> {
  const parts = (await physicalCards(host)).map(({ name, isUp, mac }) =>
    partOf('card', name, { state: isUp ? 'ok' : 'off', detail: mac }),
  )
  return { parts, edges: [] }
}

async function physicalCards(host: Sources['host']) {
  return (await linkRows(host)).filter(({ name, kind }) => kind === undefined && name !== 'lo')
}

const nameOfDevice = ({ path }: BlockDevice) => path.replace('/dev/', '')

async function wholeDisks(host: Sources['host']): Promise<BlockDevice[]> {
  return (await blockDevices(host)).filter(
    ({ type, sizeBytes, path }) => type === 'disk' && sizeBytes > 0 && !/^\/dev\/(?:loop|zram|ram|nbd)/.test(path),
  )
}

/** The disk the file system of a folder lies on. */
function diskUnder(path: string, disks: readonly BlockDevice[]): string | undefined {
  const pointsOf = (device: BlockDevice): string[] => [...device.mountPoints, ...device.children.flatMap(pointsOf)]
  for (let at = path; ; at = dirname(at)) {
    const found = disks.find((disk) => pointsOf(disk).includes(at))
    if (found) return `disk/${nameOfDevice(found)}`
    if (at === '/' || at === '.') return undefined
  }
}

// Host

const programs = { qemu: 'qemu-system-x86', lxc: 'lxc', lxcfs: 'lxcfs' } as const
type Versions = ReadonlyMap<string, string>

/** Nothing is known of versions where the machine is no Debian. */
async function versionsOf({ host, log }: Sources): Promise<Versions | undefined> {
  try {
    const found = await installedPackages(host, Object.values(programs))
    return new Map(found.map(({ name, version }) => [name, version]))
  } catch (cause) {
    log.warn('versions of programs cannot be found out', { cause })
    return undefined
  }
}

async function hostOf(sources: Sources): Promise<Graph> {
  const versions = await versionsOf(sources)
  const { node, host, settings, tasks } = sources
  const program = (kind: keyof typeof programs) => {
    const version = versions?.get(programs[kind])
    if (!versions) return unknown('nothing tells what is installed')
    return version === undefined
      ? ({ state: 'off', detail: 'not installed' } as const)
      : ({ state: 'ok', version } as const)
  }
  const fronts = await countProcessesOf(settings.uidBase - 1)
  const running = tasks.active().length
  return {
    parts: [
      partOf('kernel', undefined, { state: 'ok', version: node.kernel().release }),
      partOf('virtualization', undefined, await virtualization(sources)),
      partOf('qemu', undefined, program('qemu')),
      partOf('lxc', undefined, program('lxc')),
      partOf('lxcfs', undefined, { ...program('lxcfs'), ...(await lxcfsState(settings.runDir)) }),
      partOf('daemon', undefined, { state: 'ok', version: productVersion }),
      partOf('front', undefined, fronts > 0 ? { state: 'ok' } : { state: 'failed', detail: 'its process is gone' }),
      partOf('state', undefined, { state: 'ok' }),
      partOf('task', undefined, running > 0 ? { state: 'ok', detail: `${running} tasks running` } : { state: 'off' }),
    ],
    edges: [
      edge('kernel', 'processors', 'runs on'),
      edge('kernel', 'memory', 'runs on'),
      edge('virtualization', 'processors', 'runs on'),
      edge('qemu', 'virtualization', 'depends on'),
      edge('qemu', 'kernel', 'runs on'),
      edge('lxc', 'kernel', 'runs on'),
      edge('lxcfs', 'kernel', 'runs on'),
      edge('daemon', 'kernel', 'runs on'),
      edge('daemon', 'state', 'stores on'),
      edge('front', 'daemon', 'connects to'),
      ...(await physicalCards(host)).map(({ name }) => edge('kernel', `card/${name}`, 'runs on')),
      edge('task', 'daemon', 'depends on'),
      edge('task', 'state', 'stores on'),
      ...asEdges('state', diskUnder(settings.stateDir, await wholeDisks(host)), 'stores on'),
    ],
  }
}

const asEdges = (from: string, to: string | undefined, type: EdgeType) =>
  to === undefined ? [] : [edge(from, to, type)]

async function virtualization({ host, settings }: Sources): Promise<Pick<Part, 'state' | 'detail'>> {
  try {
    const { accelerator: kind, reason } = await accelerator({ host, cacheDir: settings.cacheDir })
    return kind === 'kvm'
      ? { state: 'ok', detail: 'KVM' }
      : { state: 'warning', detail: `software emulation: ${reason}` }
  } catch (cause) {
    return unknown(messageOf(cause))
  }
}

/** It is started with the first container. */
async function lxcfsState(runDir: string): Promise<{ state?: PartState; detail?: string }> {
  const directory = `${runDir}/lxcfs`
  if (await lxcfsHasDied(directory)) return { state: 'failed', detail: 'its process is gone' }
  const isMounted = (await mountPoints()).some((point) => point.startsWith(`${directory}/`))
  return isMounted ? {} : { state: 'off', detail: 'no container has needed it yet' }
}

// Storage and network

async function storagesOf(sources: Sources, may: May): Promise<Graph> {
  const { storage, settings, host } = sources
  const [items, configs, disks] = [
    await nodeStorages(storage, { node: settings.node }, may),
    await storage.list(),
    await wholeDisks(host),
  ]
  const parts: Part[] = []
  const edges: Edge[] = []
  for (const item of items) {
    const [{ storage: name, type, content }, id] = [item, `storage/${item.storage}`]
    const state = stateOf(item)
    parts.push(partOf('storage', name, { state, detail: `${type}: ${content}` }))
    const path = configs.find((config) => config.name === name)?.options.path
    if (typeof path === 'string') edges.push(...asEdges(id, diskUnder(path, disks), 'stores on'))
    if (!content.split(',').includes('backup')) continue
    parts.push(partOf('datastore', name, { state }))
    edges.push(edge(`datastore/${name}`, id, 'stores on'))
  }
  return { parts, edges }
}

function stateOf({ enabled, active, used_fraction: used = 0 }: StorageItem): PartState {
  if (enabled !== true) return 'off'
  if (active !== true) return 'failed'
  return used > 0.9 ? 'warning' : 'ok'
}

async function bridgesOf({ network, host }: Sources): Promise<Graph> {
  const [own, links, cards] = [await network.bridges(), await linkRows(host), await physicalCards(host)]
  const bridges = links.filter(({ kind }) => kind === 'bridge')
  const names = new Set([...own.map(({ name }) => name), ...bridges.map(({ name }) => name)])
  return {
    parts: [...names].map((name) => {
      const [ours, link] = [own.find((one) => one.name === name), bridges.find((one) => one.name === name)]
      if (!ours) return partOf('bridge', name, { state: link?.isUp ? 'ok' : 'off' })
      const detail = [ours.cidr, ours.nat ? 'NAT' : '', ours.range ? 'DHCP' : '']
        .filter((text) => text !== '')
        .join(', ')
      return partOf('bridge', name, { state: ours.isActive ? 'ok' : 'failed', detail })
    }),
    edges: [
      ...[...names].map((name) => edge(`bridge/${name}`, 'kernel', 'runs on')),
      ...cards.flatMap(({ name, master }) =>
        master !== undefined && names.has(master) ? [edge(`bridge/${master}`, `card/${name}`, 'connects to')] : [],
      ),
    ],
  }
}

// Guests

async function guestsOf(sources: Sources, may: May): Promise<Graph> {
  const [guests, jobs, pools] = [
    await visibleGuests(sources.guests, may),
    await sources.backupJobs.list(),
    await sources.pools.all(),
  ]
  const graphs = guests.map((guest) => guestParts(guest))
  const backups = jobs.filter(isEnabled).flatMap((job) => {
    const members = typeof job.options.pool === 'string' ? pools.get(job.options.pool)?.vms : undefined
    return guests
      .filter(({ vmid }) => isCovered(vmid, job, members))
      .map((guest) => edge(idOf(guest), `datastore/${storageOf(job)}`, 'backs up to'))
  })
  return {
    parts: graphs.flatMap(({ parts }) => parts),
    edges: [...graphs.flatMap(({ edges }) => edges), ...backups],
  }
}

const idOf = ({ kind, vmid }: GuestStatus) => `${kind === 'lxc' ? 'ct' : 'vm'}/${vmid}`
const storageOf = ({ options }: BackupJob) => (typeof options.storage === 'string' ? options.storage : 'local')

function isCovered(vmid: number, { options }: BackupJob, pool: readonly number[] | undefined): boolean {
  const listed = (value: unknown) => (typeof value === 'string' ? splitList(value).map(Number) : [])
  if (options.all === true || options.all === 1) return !listed(options.exclude).includes(vmid)
  return listed(options.vmid).includes(vmid) || (pool?.includes(vmid) ?? false)
}

function guestParts(guest: GuestStatus): Graph {
  const { kind, vmid, name, options, state, isTemplate } = guest
  const [id, isContainer] = [idOf(guest), kind === 'lxc']
  const volumes = (isContainer ? mountedVolumes(options) : volumesIn(options)).map(({ name: slot, volid }) => ({
    slot,
    volid,
    storage: splitVolumeId(volid).storage,
  }))
  const cards = isContainer ? cardsOfContainer(options) : nicsOf(options)
  const isOn = state.state === 'running'
  const own = partOf(isContainer ? 'ct' : 'vm', String(vmid), {
    state: isOn ? 'ok' : 'off',
    detail: isTemplate ? `${name}, kept as a template` : name,
  })
  const volumePart = (slot: string) => partOf('volume', `${vmid}/${slot}`, { state: own.state })
  const cardPart = (slot: string) => partOf('nic', `${vmid}/${slot}`, { state: own.state })
  return {
    parts: [own, ...volumes.map(({ slot }) => volumePart(slot)), ...cards.map(({ name: slot }) => cardPart(slot))],
    edges: [
      edge(id, isContainer ? 'lxc' : 'qemu', 'runs on'),
      ...(isContainer && mountsOf(options).length > 0 ? [edge(id, 'lxcfs', 'depends on')] : []),
      ...volumes.flatMap(({ slot, storage }) => [
        edge(id, `volume/${vmid}/${slot}`, 'depends on'),
        edge(`volume/${vmid}/${slot}`, `storage/${storage}`, 'stores on'),
      ]),
      ...cards.flatMap(({ name: slot, bridge }) =>
        bridge === undefined
          ? []
          : [
              edge(id, `nic/${vmid}/${slot}`, 'depends on'),
              edge(`nic/${vmid}/${slot}`, `bridge/${bridge}`, 'connects to'),
            ],
      ),
    ],
  }
}
