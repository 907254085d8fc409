/** Bounds of the edge that `base/limits.ts` does not hold. */
import { GiB, KiB, MiB } from '#base/bytes.ts'

export const bounds = {
  /** A failed login is answered this long after its request began, so that guessing is slow. */
  failedLoginMs: 3_000,
  /** How often connections are looked over for ones that are too slow. */
  checkEveryMs: 1_000,
  tlsHandshakeMs: 10_000,
  keepAliveMs: 30_000,
  /** An upload that sends nothing for this long is cut off. */
  uploadIdleMs: 60_000,
  /** The daemon's answer to a request that is complete. */
  replyMs: 180_000,
  /** Calls of clients that wait for the daemon at one time. */
  callsAtOnce: 4_096,
  /** After an early refusal: what is still taken in so that the client can read why, and for how long. */
  lingerBytes: 8 * MiB,
  lingerMs: 2_000,
  /** Smaller replies are not worth compressing. */
  gzipFromBytes: 1 * KiB,
  /** Smaller replies leave together with their headers. */
  wholeBytes: 2 * KiB,
  uploadFields: 32,
  uploadFieldBytes: 64 * KiB,
  /** Left free on the file system of the spool when an upload's length is known. */
  spoolReserveBytes: GiB / 4,
  /** A viewer by SPICE that says nothing for this long is asked whether it is still there. */
  spiceAliveMs: 60_000,
  restartFirstMs: 100,
  restartLongestMs: 10_000,
  /** A front that ran this long is healthy again: the next restart is quick. */
  healthyAfterMs: 60_000,
  frontStartMs: 15_000,
  frontStopMs: 5_000,
} as const
