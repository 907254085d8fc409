/** How fast long work goes, how long it still takes, and when it is worth a line in a log. Told the time, so it needs no clock. */
import { humanSize } from './bytes.ts'

/** How far work has come. */
export interface Mark {
  readonly phase: string
  /** 0 to 1. */
  readonly fraction?: number | undefined
  /** Done within the phase. */
  readonly bytes?: number | undefined
}

export interface Speed {
  /** Bytes per second over the last half minute. */
  readonly rate?: number
  /** Seconds until all is done, as the phase went so far. */
  readonly left?: number
}

/** Before that nothing can be told. */
const earliestMs = 2_000
const leastGained = 0.01
const windowMs = 30_000
/** A window holds some sixty of them. */
const sampleEveryMs = 500

/** To be told of every mark, in order; a new phase starts anew. */
export function paceOf(): (mark: Mark, nowMs: number) => Speed {
  let first: { readonly phase: string; readonly fraction: number | undefined; readonly at: number } | undefined
  let recent: { readonly at: number; readonly bytes: number }[] = []
  return ({ phase, fraction, bytes }, now) => {
    const isBehind = fraction !== undefined && first?.fraction !== undefined && fraction < first.fraction
    if (first?.phase !== phase || isBehind) {
      first = { phase, fraction, at: now }
      recent = []
    }
    if (first.fraction === undefined && fraction !== undefined) first = { phase, fraction, at: now }
    const [gained, took] = [(fraction ?? 0) - (first.fraction ?? 0), now - first.at]
    const left = fraction === undefined || gained < leastGained || took < earliestMs ? undefined : took / gained
    const rate = bytes === undefined ? undefined : rateOver(recent, { at: now, bytes })
    return {
      ...(rate === undefined ? {} : { rate: Math.round(rate) }),
      ...(left === undefined || fraction === undefined ? {} : { left: Math.round((left * (1 - fraction)) / 1000) }),
    }
  }
}

function rateOver(recent: { readonly at: number; readonly bytes: number }[], now: { at: number; bytes: number }) {
  const last = recent.at(-1)
  if (last === undefined || now.at - last.at >= sampleEveryMs) recent.push(now)
  // The oldest one stays until the next is old enough, so that slow work has a rate too.
  while (recent[1] && now.at - recent[1].at >= windowMs) recent.shift()
  const [oldest = now] = recent
  return now.at - oldest.at < earliestMs
    ? undefined
    : Math.max(0, (now.bytes - oldest.bytes) / (now.at - oldest.at)) * 1000
}

const lineEveryMs = 10_000
const lineEveryShare = 0.01
/** However slow it is, somebody who looks sees that it goes on. */
const lineAtLatestMs = 300_000

/** Whether a line is due: after ten seconds and a hundredth, or five minutes. A phase that is over soon has none. */
export function linesOf(): (mark: Mark, nowMs: number) => boolean {
  let last: { readonly phase: string; readonly fraction: number; readonly at: number } | undefined
  return ({ phase, fraction = 0 }, now) => {
    if (last?.phase !== phase) {
      last = { phase, fraction, at: now }
      return false
    }
    const passed = now - last.at
    if (passed < lineEveryMs || (Math.abs(fraction - last.fraction) < lineEveryShare && passed < lineAtLatestMs))
      return false
    last = { phase, fraction, at: now }
    return true
  }
}

/**
 * `read scsi0: 12 %, 4.0 GiB, 210 MiB/s, 0:42 left`
 * @param leftText how that time is said
 */
export function progressLine(
  { phase, fraction, bytes }: Mark,
  { rate, left }: Speed,
  leftText = (face: string) => `${face} left`,
): string {
  const parts = [
    fraction === undefined ? '' : `${Math.floor(Math.min(1, fraction) * 100)} %`,
    bytes === undefined ? '' : humanSize(bytes),
    rate === undefined ? '' : `${humanSize(rate)}/s`,
    left === undefined ? '' : leftText(clockFace(left)),
  ].filter(Boolean)
  return parts.length === 0 ? `${phase} …` : `${phase}: ${parts.join(', ')}`
}

/** Of seconds: `1:05:09`, `0:42` */
export function clockFace(seconds: number): string {
  const total = Math.ceil(seconds)
  const two = (value: number) => String(value).padStart(2, '0')
  const [hours, minutes] = [Math.floor(total / 3600), Math.floor(total / 60) % 60]
  return `${hours > 0 ? `${hours}:${two(minutes)}` : minutes}:${two(total % 60)}`
}
