/**
 * Reads what a guest says while it boots: on its serial console, and its firmware on the debug port.
 *
 * Two verdicts end the waiting early: signs that an operating system is up, and signs that it never will
 * be. A drill that only waited for its deadline would need minutes to report a missing boot loader.
 */
const upSigns: readonly RegExp[] = [
  /\blogin:/,
  /^READY\b/m,
  /Welcome to /,
  /Reached target .*(Multi-User|Login|Graphical)/,
  /Linux version \d/,
]

const deadSigns: readonly { readonly sign: RegExp; readonly says: string }[] = [
  { sign: /Kernel panic[^\n]*/, says: 'the kernel panicked' },
  { sign: /emergency mode|rescue mode/i, says: 'the system is in emergency mode' },
  { sign: /UNEXPECTED INCONSISTENCY[^\n]*/, says: 'the file system check found damage' },
  { sign: /No bootable device[^\n]*/, says: 'the firmware found nothing to boot' },
  { sign: /Failed to load (?:COM32 file|ldlinux)[^\n]*/, says: 'the boot loader is damaged' },
]

export type ConsoleVerdict =
  | { readonly state: 'up'; readonly line: string }
  | { readonly state: 'dead'; readonly why: string }
  | { readonly state: 'silent' }

/** Judges everything said so far; death outweighs life, because a panicking kernel has printed its version too. */
export function judgeConsole(serial: string, firmware: string): ConsoleVerdict {
  for (const { sign, says } of deadSigns) {
    const match = sign.exec(serial) ?? sign.exec(firmware)
    if (match) return { state: 'dead', why: `${says} ('${match[0].trim().slice(0, 120)}')` }
  }
  for (const sign of upSigns) {
    const match = sign.exec(serial)
    if (match) return { state: 'up', line: lineAround(serial, match.index) }
  }
  return { state: 'silent' }
}

function lineAround(text: string, at: number): string {
  const end = text.indexOf('\n', at)
  return text
    .slice(text.lastIndexOf('\n', at) + 1, end < 0 ? undefined : end)
    .trim()
    .slice(0, 120)
}
