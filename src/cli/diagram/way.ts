/** The way a backup took through the parts of the node, with the times its record holds. */
import { humanSize } from '#base/bytes.ts'
import { splitVolumeId, asVolumeId } from '#base/ids.ts'
import type { Architecture } from '#views/architecture/graph.ts'
import { filledPath } from '../path.ts'
import type { RunFacts } from '../run-command.ts'
import { say } from '../text.ts'
import { shownAs } from './shown-as.ts'
import type { Way } from './svg.ts'

interface Part {
  readonly name: string
  readonly data: number
  readonly stored: number
}

interface BackupFacts {
  readonly vmid: number
  readonly pointInTime: string
  readonly finished: number
  readonly disks: readonly Part[]
  readonly trees: readonly Part[]
  readonly facts: Readonly<Record<string, unknown>>
}

/** @throws Fault `missing` for a backup that is not there */
export async function wayOf(volid: string, architecture: Architecture, facts: RunFacts): Promise<Way> {
  const { parts, edges } = architecture
  const { connection, terminal } = facts
  const { language } = terminal
  const backup = (await connection.call('GET', filledPath('/hako/backups/{volume*}', { volume: volid })))
    .data as BackupFacts
  const isContainer = backup.trees.length > 0
  const storage = splitVolumeId(asVolumeId(volid)).storage
  const read = [...backup.disks, ...backup.trees]
  const [data, stored] = [sum(read.map((one) => one.data)), sum(read.map((one) => one.stored))]
  const tookSeconds = backup.finished - Math.floor(Date.parse(backup.pointInTime) / 1000)
  const { mode } = backup.facts
  const held = heldOf(backup.facts)
  const says = held === undefined ? undefined : say(language, 'wayHeld', String(held))
  const wanted = [
    { part: shownAs(`${isContainer ? 'ct' : 'vm'}/${backup.vmid}`, architecture), says },
    { part: isContainer ? 'lxc' : 'qemu', says: typeof mode === 'string' ? mode : undefined },
    { part: 'task', says: say(language, 'wayRead', humanSize(data), String(tookSeconds)) },
    { part: shownAs(`datastore/${storage}`, architecture), says: say(language, 'wayStored', humanSize(stored)) },
    { part: shownAs(`storage/${storage}`, architecture), says: undefined },
  ]
  const disk = edges.find(({ from, to }) => from === wanted[4]?.part && to.startsWith('disk'))?.to
  const stops = [...wanted, ...(disk === undefined ? [] : [{ part: disk, says: undefined }])]
  return {
    title: say(language, 'wayTitle', volid, backup.pointInTime),
    stops: stops.filter(({ part }) => parts.some(({ id }) => id === part)),
  }
}

/** How long the guest could not write, in milliseconds: its file systems were frozen, or it stood still. */
function heldOf({ freeze, heldMs }: BackupFacts['facts']): number | undefined {
  const { durationMs } = Object(freeze) as { readonly durationMs?: unknown }
  const known = [durationMs, heldMs].filter((ms) => typeof ms === 'number')
  return known.length === 0 ? undefined : Math.max(...known)
}

const sum = (numbers: readonly number[]) => numbers.reduce((all, one) => all + one, 0)
