/**
 * Backups of containers: the files of its root and of the mount points that ask for it, as trees.
 *
 * A running container is read twice in mode `suspend`: beside it, which takes as long as it takes, and once more what
 * changed meanwhile, while it is held still. A stopped one is read once. In mode `snapshot` it is held still for as long
 * as the storage takes to keep the moment, and read from that.
 */
import { humanSize, rateOfLimit } from '#base/bytes.ts'
import { isFault } from '#base/fault.ts'
import type { Vmid, VolumeId } from '#base/ids.ts'
import type { AddTreeOptions, TreeCounts } from '#datastore/tree/pass.ts'
import { type TreeNotes, type TreeSource, treeSource } from '#datastore/tree/source.ts'
import type { AddedTree } from '#datastore/backup/trees.ts'
import { hostnameOf } from '#guests/config.ts'
import { isUnprivileged } from '#guests/lxc/features.ts'
import { idsOnDisk } from '#guests/lxc/mount-ids.ts'
import { dropEverywhere } from '../guest/snapshot-disks.ts'
import { markOf } from '../storage/aside.ts'
import type { FreezeVerdict } from './freeze.ts'
import { guestConfNames } from './guest-conf.ts'
import { type GuestTree, type LeftOutMount, treesToBackUp } from './guest-trees.ts'
import type { BackupDeps, BackupHalf, BackupMode, GuestToBackUp, ReadableGuest, WhatWasRead } from './half.ts'
import { letGoOn, whileStill } from './still-container.ts'
import { TornFiles } from './torn-files.ts'
import { patternsBelow, patternsOf } from './tree-excludes.ts'
import { whileDown } from './while-down.ts'

export const containerHalf: BackupHalf = {
  kind: 'lxc',
  type: 'ct',
  confName: guestConfNames.ct,
  nameOf: hostnameOf,
  modeFor,
  open,
  leave,
}

/** Of the container as it runs. */
function treesOf({ config }: GuestToBackUp): { included: GuestTree[]; leftOut: LeftOutMount[] } {
  return treesToBackUp(config.running ?? config.options)
}

async function modeFor(guest: GuestToBackUp): Promise<BackupMode> {
  const { wasRunning, context } = guest
  const { how, log, deps } = context
  if (!wasRunning) return 'stop'
  if (how.mode !== 'snapshot') return how.mode
  for (const { volid } of treesOf(guest).included) {
    if (await hasMoments(deps, volid)) continue
    // Words that people who come from Proxmox VE look for.
    log('mode failure - some volumes do not support snapshots')
    log("trying 'suspend' mode instead")
    return 'suspend'
  }
  return 'snapshot'
}

async function open(guest: GuestToBackUp, mode: BackupMode): Promise<ReadableGuest> {
  const trees = treesOf(guest)
  say(trees, guest.context.log)
  if (guest.context.how.fleecingStorage !== undefined) {
    guest.context.log('fleecing has no effect: nothing a container overwrites is in the way of its backup')
  }
  const read: Reading = { guest, mode, ...trees }
  switch (mode) {
    case 'snapshot':
      return fromSnapshots(read)
    case 'suspend':
      return besideAndStill(read)
    case 'stop':
      return guest.wasRunning ? whileDown(guest, () => atRest(read)) : atRest(read)
    default:
      return mode satisfies never
  }
}

interface Reading {
  readonly guest: GuestToBackUp
  readonly mode: BackupMode
  readonly included: readonly GuestTree[]
  readonly leftOut: readonly LeftOutMount[]
}

/** As Proxmox VE says it. */
function say({ included, leftOut }: Pick<Reading, 'included' | 'leftOut'>, log: (line: string) => void): void {
  for (const { name, path } of included) log(`including mount point ${name} ('${path}') in backup`)
  for (const { mount, path, reason } of leftOut) {
    const kind = reason === 'disabled' ? 'volume' : 'bind'
    log(`excluding ${kind} mount point ${mount} ('${path}') from backup (${reason})`)
  }
}

/** A container that does not run: nobody changes its files, for its lock is ours. */
async function atRest(reading: Reading): Promise<ReadableGuest> {
  const { guest, included } = reading
  const { deps } = guest.context
  const takenMs = deps.clock.now()
  const places = await placesOf(guest, included, { isReadOnly: true })
  return {
    async read(writer) {
      await readTrees(reading, places, 'read', (name, source, options) => writer.addTree(name, source, options))
      return { takenMs, facts: factsOf(reading, { state: 'not-frozen', reason: 'the guest is stopped' }) }
    },
    [Symbol.asyncDispose]: () => deps.guests.closeVolumes(guest.vmid),
  }
}

/** A container that runs and goes on: read beside it first, then held still for what changed meanwhile. */
async function besideAndStill(reading: Reading): Promise<ReadableGuest> {
  const { guest, included } = reading
  const { vmid, context } = guest
  const { deps, log } = context
  const places = await placesOf(guest, included)
  return {
    async read(writer) {
      log('starting first pass beside the running guest')
      await readTrees(reading, places, 'first pass', (name, source, options) =>
        writer.readAheadTree(name, source, options),
      )
      log('suspending guest')
      const { result: takenMs, heldMs } = await whileStill(deps.guests, vmid, async () => {
        const now = deps.clock.now()
        await readTrees(reading, places, 'read', (name, source, options) => writer.addTree(name, source, options))
        return now
      })
      log(`guest is online again after ${(heldMs / 1000).toFixed(heldMs < 10_000 ? 1 : 0)} seconds`)
      return { takenMs, facts: factsOf(reading, heldFacts(heldMs, included), heldMs) }
    },
    [Symbol.asyncDispose]: () => leave(deps, vmid, context.upid),
  }
}

/** A container that runs, read from what its storages keep of one moment. */
async function fromSnapshots(reading: Reading): Promise<ReadableGuest> {
  const { guest, included } = reading
  const { vmid, context } = guest
  const { deps, log, upid } = context
  const at = tagOf(upid)
  await using undo = new AsyncDisposableStack()
  undo.defer(() => leave(deps, vmid, upid))
  log('create storage snapshot')
  const { result: takenMs, heldMs } = await whileStill(deps.guests, vmid, async () => {
    const now = deps.clock.now()
    for (const { volid } of included) await (await deps.storage.snapshots(volid)).take(at)
    return now
  })
  log(`the guest was held still for ${heldMs} ms`)
  const places = await placesOf(guest, included, { at })
  const release = undo.move()
  return {
    async read(writer) {
      await readTrees(reading, places, 'read', (name, source, options) => writer.addTree(name, source, options))
      return { takenMs, facts: factsOf(reading, heldFacts(heldMs, included), heldMs) }
    },
    [Symbol.asyncDispose]: () => release.disposeAsync(),
  }
}

/** Snapshots of a task's own: no person can give one such a name. */
const tagOf = (upid: string) => `backup-${markOf(upid)}`

/** Whether its storage can keep a moment of the volume that is there to be read. */
async function hasMoments({ storage }: BackupDeps, volid: VolumeId): Promise<boolean> {
  try {
    return (await storage.snapshots(volid)).pathOf('any') !== undefined
  } catch (fault) {
    if (isFault(fault, 'failed')) return false
    throw fault
  }
}

/** Where the trees are on the node: of a running container, where they are mounted for it. */
function placesOf(
  { vmid, config, context: { deps } }: GuestToBackUp,
  trees: readonly GuestTree[],
  how: { readonly at?: string; readonly isReadOnly?: boolean } = {},
): Promise<Readonly<Record<string, string>>> {
  const options = config.running ?? config.options
  const texts = Object.fromEntries(trees.map(({ name }) => [name, options[name] ?? '']))
  return deps.guests.openVolumes(vmid, texts, how)
}

const heldFacts = (durationMs: number, { length }: readonly GuestTree[]) => ({
  state: 'frozen' as const,
  fileSystems: length,
  durationMs,
})

function factsOf(
  { guest: { wasRunning, config, context }, mode, included, leftOut }: Reading,
  freeze: FreezeVerdict,
  heldMs = 0,
): WhatWasRead['facts'] {
  return {
    mode,
    wasRunning,
    node: context.deps.settings.node,
    freeze: { ...freeze },
    heldMs,
    unprivileged: isUnprivileged(config.options),
    leftOut: leftOut.map(({ mount, reason }) => ({ mount, reason })),
    /** Where each tree is inside. */
    mounts: Object.fromEntries(included.map(({ name, path }) => [name, path])),
    excluded: patternsOf(context.how),
  }
}

/** Takes out whatever a backup put in, of this process or one that died. */
async function leave(deps: BackupDeps, vmid: Vmid, upid: string): Promise<void> {
  const { guests } = deps
  await letGoOn(guests, vmid)
  await guests.closeVolumes(vmid, tagOf(upid))
  const { options, running = options } = await guests.config(vmid, 'lxc')
  for (const { volid } of treesToBackUp(running).included) {
    if (await hasMoments(deps, volid)) await dropEverywhere(deps, vmid, [volid], tagOf(upid))
  }
  if (!(await guests.isRunning(vmid))) await guests.closeVolumes(vmid)
}

type AddTree = (name: string, source: TreeSource, options: AddTreeOptions) => Promise<TreeCounts | AddedTree>

/** Reads all trees in turn. */
async function readTrees(
  { guest, included }: Reading,
  places: Readonly<Record<string, string>>,
  phase: string,
  add: AddTree,
): Promise<void> {
  const { config, context } = guest
  const { deps, how, log, progress, signal } = context
  for (const [number, { name, path, mount }] of included.entries()) {
    const source = treeSource({
      root: places[name] ?? '',
      idMap: idsOnDisk(config.running ?? config.options, mount.values.idmap),
      excludes: patternsBelow(path, patternsOf(how)),
    })
    const startedMs = deps.clock.monotonic()
    const torn = new TornFiles(path)
    const read = await add(name, source, {
      signal,
      onTorn: torn.add,
      rateBytesPerSecond: rateOfLimit(how.bwlimit),
      onProgress: ({ readBytes }) => progress(`${phase} ${name}`, number / included.length, readBytes),
    })
    const tookSeconds = ((deps.clock.monotonic() - startedMs) / 1000).toFixed(1)
    log(
      `${name}: ${phase}: ${read.entries} files, ${humanSize(read.dataBytes)} of data, ${humanSize(read.readBytes)} read, ` +
        `${humanSize(read.newStoredBytes)} stored anew, ${tookSeconds} s`,
    )
    if (!('notes' in read)) continue
    sayNotes(name, read.notes, context)
    torn.say(name, context)
  }
}

/** What the owner of the tree should know. */
function sayNotes(name: string, notes: TreeNotes, { log, warn }: GuestToBackUp['context']): void {
  const { foreignIds, mounts, excluded, apart, examples } = notes
  if (excluded > 0) log(`${name}: ${excluded} files and folders are excluded`)
  if (foreignIds > 0) warn(`${name}: ${foreignIds} entries belong to nobody of the container, and are kept as nobody's`)
  if (mounts > 0) warn(`${name}: what is mounted in it is left out (${mounts} places)`)
  if (apart > 0) warn(`${name}: ${apart} names of files with very many names are kept as files of their own`)
  const shown = foreignIds + mounts + apart > 0 ? examples.filter((line) => !line.startsWith('excluded:')) : []
  for (const line of shown.slice(0, 5)) log(`${name}: ${line}`)
}
