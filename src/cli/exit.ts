/** Exit codes: what a script can rely on. The only place where a fault's kind becomes one. */
import { Fault, type FaultKind } from '#base/fault.ts'

export const exitCodes = {
  ok: 0,
  failed: 1,
  usage: 2,
  missing: 3,
  denied: 4,
  conflict: 5,
  timeout: 6,
  unproven: 7,
  /** As shells report a program ended by Ctrl-C. */
  interrupted: 130,
} as const

export function exitCodeOf(error: unknown): number {
  return error instanceof Fault ? codeOfKind(error.kind) : exitCodes.failed
}

function codeOfKind(kind: FaultKind): number {
  switch (kind) {
    case 'invalid':
      return exitCodes.usage
    case 'missing':
      return exitCodes.missing
    case 'unauthenticated':
    case 'denied':
      return exitCodes.denied
    case 'conflict':
      return exitCodes.conflict
    case 'timeout':
      return exitCodes.timeout
    case 'unproven':
      return exitCodes.unproven
    case 'aborted':
      return exitCodes.interrupted
    case 'unavailable':
    case 'exhausted':
    case 'damaged':
    case 'unimplemented':
    case 'too-large':
    case 'unsupported-media':
    case 'failed':
      return exitCodes.failed
    default:
      return kind satisfies never
  }
}
