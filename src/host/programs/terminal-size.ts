/** How large a pseudo terminal of a container is told to be, by the device that stands for it inside. */
import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import { resizePseudoTerminal } from '../native.ts'
import { openWithin } from '../files/open-within.ts'

/** Of devices that are pseudo terminals; nobody inside makes another one under that number. */
const pseudoTerminals = 136

/** Nothing happens when there is no pseudo terminal at that path inside. */
export function resizeTerminalWithin(root: string, path: string, size: { columns: number; rows: number }): void {
  const directory = openSync(root, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    using handle = openWithin(directory, path)
    if (handle === undefined || !isPseudoTerminal(handle.fd)) return
    const terminal = openSync(handle.path, constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK)
    try {
      resizePseudoTerminal(terminal, size.columns, size.rows)
    } finally {
      closeSync(terminal)
    }
  } finally {
    closeSync(directory)
  }
}

function isPseudoTerminal(fd: number): boolean {
  const facts = fstatSync(fd)
  const major = (facts.rdev >> 8) & 0xfff
  return facts.isCharacterDevice() && major >= pseudoTerminals && major < pseudoTerminals + 8
}
