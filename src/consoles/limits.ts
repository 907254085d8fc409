/** Bounds of consoles: how many, how long each may wait, how much is held for a slow one. */
import { KiB, MiB } from '#base/bytes.ts'

export const consoleLimits = {
  /** As Proxmox VE counts them; clients refuse other numbers. No port of the machine is opened. */
  firstPort: 5900,
  lastPort: 5999,
  /** One user leaves room for others. */
  perUser: 40,
  /** From the ticket to the client that brings it. */
  waitMs: 10_000,
  /** The same for SPICE: a person opens the file that was downloaded. As long as the ticket holds. */
  spiceWaitMs: 40_000,
  /** Connections of one viewer by SPICE: screens, keys, pointer, sound, devices, files. */
  spiceChannels: 48,
  /** From the end of a channel, or of the main one, until what QEMU has left open is cut off. */
  spiceGraceMs: 1_000,
  /** For the password of a screen: a person may have to type it. */
  passwordMs: 60_000,
  /** For the line that begins a terminal: a program sends it. */
  greetingMs: 10_000,
  greetingBytes: 1 * KiB,
  /** How often it is asked whether the user may still look. */
  askAgainMs: 30_000,
  /** Typed text in one message; a paste is one. */
  inputBytes: 4 * MiB,
  columns: 4_096,
  rows: 4_096,
  /** Output of a serial port kept for a viewer who does not take it. */
  unreadBytes: 256 * KiB,
} as const
