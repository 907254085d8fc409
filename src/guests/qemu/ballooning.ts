/**
 * How memory is shared out among guests whose balloon may move, so that the node uses no more than its owner wants. Pure.
 *
 * A guest whose `balloon` is less than its `memory`, and whose `shares` are not 0, has at least the first and at most the
 * second. Between the two it gets a part of what there is as large as its shares. The way there is in small steps,
 * because a guest that loses memory has to write something out, and what it no longer uses shows only after a while.
 * Only guests that have more than their part give, and only as much as the node lacks; when there is room again, those
 * that have less than their part get it back.
 */
import type { Options } from '../config.ts'
import { memoryMiBOf } from './memory.ts'

/** What a guest's owner allows. */
export interface BalloonBounds {
  readonly leastMiB: number
  readonly mostMiB: number
  readonly shares: number
}

export interface BalloonedGuest extends BalloonBounds {
  readonly vmid: number
  /** What it has now. */
  readonly nowMiB: number
}

export interface NodeMemory {
  readonly totalMiB: number
  readonly usedMiB: number
  /** Share of it that may be used, 0 to 100. */
  readonly targetPercent: number
}

const stepMiB = 100
/** Less than that is noise. */
const deadMiB = 10
const defaultShares = 1000

/** Undefined for a guest whose memory is its owner's alone to change. */
export function balloonBoundsOf(options: Options): BalloonBounds | undefined {
  const mostMiB = memoryMiBOf(options)
  const leastMiB = Number(options.balloon ?? mostMiB)
  const shares = Number(options.shares ?? defaultShares)
  return leastMiB > 0 && leastMiB < mostMiB && shares > 0 ? { leastMiB, mostMiB, shares } : undefined
}

/** What each guest is to have from now on; those that keep what they have are left out. */
export function shareOut(node: NodeMemory, guests: readonly BalloonedGuest[]): Map<number, number> {
  const roomMiB = Math.floor((node.totalMiB * node.targetPercent) / 100 - node.usedMiB)
  if (Math.abs(roomMiB) < deadMiB) return new Map()
  const haveMiB = guests.reduce((sum, { nowMiB }) => sum + nowMiB, 0)
  const parts = partsOf(guests, haveMiB + roomMiB)
  // Towards its part, a step at most, and never against what the node needs.
  const moves = guests.map(({ vmid, nowMiB }, position) => {
    const way = (parts[position] ?? nowMiB) - nowMiB
    const isWanted = roomMiB < 0 ? way < 0 : way > 0
    return { vmid, nowMiB, moveMiB: isWanted ? Math.sign(way) * Math.min(Math.abs(way), stepMiB) : 0 }
  })
  const sumMiB = Math.abs(moves.reduce((sum, { moveMiB }) => sum + moveMiB, 0))
  const share = sumMiB > Math.abs(roomMiB) ? Math.abs(roomMiB) / sumMiB : 1
  return new Map(
    moves.flatMap(({ vmid, nowMiB, moveMiB }) => {
      const byMiB = Math.trunc(moveMiB * share)
      return byMiB === 0 ? [] : [[vmid, nowMiB + byMiB] as const]
    }),
  )
}

/** The part of each when all of them have that much: by shares, and what one cannot take goes to the others. */
function partsOf(guests: readonly BalloonedGuest[], allMiB: number): number[] {
  const parts = guests.map(({ leastMiB }) => leastMiB)
  let left = allMiB - parts.reduce((sum, part) => sum + part, 0)
  let open = guests.map((_, position) => position)
  while (left > 0 && open.length > 0) {
    const shares = open.reduce((sum, position) => sum + (guests[position]?.shares ?? 0), 0)
    const perShare = left / shares
    const full = open.filter(
      (position) => roomIn(guests[position], parts[position]) <= perShare * sharesOf(guests[position]),
    )
    // When nobody is full after this everything is given out.
    for (const position of full.length > 0 ? full : open) {
      const guest = guests[position]
      const gift = full.length > 0 ? roomIn(guest, parts[position]) : perShare * sharesOf(guest)
      parts[position] = (parts[position] ?? 0) + gift
      left -= gift
    }
    open = full.length > 0 ? open.filter((position) => !full.includes(position)) : []
  }
  return parts.map(Math.floor)
}

function roomIn(guest: BalloonedGuest | undefined, part = 0): number {
  return (guest?.mostMiB ?? 0) - part
}

function sharesOf(guest: BalloonedGuest | undefined): number {
  return guest?.shares ?? 0
}
