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

/** What the init of a container says before it gives up; its kernel is the node's, and says nothing there. */
const deadContainerSigns: typeof deadSigns = [
  { sign: /emergency mode|rescue mode/i, says: 'the system is in emergency mode' },
  { sign: /\[!!!!!!\][^\n]*|Freezing execution[^\n]*|Exiting PID 1[^\n]*/, says: 'its init gave up' },
]

export type ConsoleVerdict =
  | { readonly state: 'up'; readonly line: string }
  | { readonly state: 'dead'; readonly why: string }
  | { readonly state: 'silent' }

/** Judges everything said so far; death outweighs life, because a panicking kernel has printed its version too. */
export function judgeConsole(serial: string, firmware: string): ConsoleVerdict {
  const death = deathIn(serial, deadSigns) ?? deathIn(firmware, deadSigns)
  if (death !== undefined) return { state: 'dead', why: death }
  for (const sign of upSigns) {
    const match = sign.exec(serial)
    if (match) return { state: 'up', line: lineAround(serial, match.index) }
  }
  return { state: 'silent' }
}

/** Why the container whose console said this will never be up; nothing when nothing speaks against it. */
export function whyContainerIsDead(console: string): string | undefined {
  return deathIn(console, deadContainerSigns)
}

function deathIn(text: string, signs: typeof deadSigns): string | undefined {
  for (const { sign, says } of signs) {
    const match = sign.exec(text)
    if (match) return `${says} ('${match[0].trim().slice(0, 120)}')`
  }
  return undefined
}

function lineAround(text: string, at: number): string {
  const end = text.indexOf('\n', at)
  return text
    .slice(text.lastIndexOf('\n', at) + 1, end < 0 ? undefined : end)
    .trim()
    .slice(0, 120)
}
