/**
 * A fault is a failure with a kind, a text for the user, fields and a cause.
 *
 * The kinds are a closed list; only `rest/reply.ts` knows which status each becomes, and only
 * `cli/exit.ts` which exit code. Texts are contract: other people's tools match on "does not exist".
 */
export type FaultKind =
  | 'invalid' //          a parameter broke its rule
  | 'unauthenticated' //  nobody is logged in, or the proof of it is bad
  | 'denied' //           logged in, without the right
  | 'missing' //          the object does not exist
  | 'conflict' //         the object exists, is locked, was changed, is in the wrong state
  | 'unavailable' //      a service, storage or agent that should answer does not
  | 'exhausted' //        no space, no memory, no free id
  | 'timeout' //          it took longer than its limit
  | 'aborted' //          somebody asked for it to stop
  | 'damaged' //          data is not what it was when written
  | 'unproven' //         a proof was attempted and failed
  | 'unimplemented' //    no such path or method
  | 'too-large' //        over a size limit
  | 'unsupported-media' // a body type nobody reads
  | 'failed' //           anything else that may happen

export interface FaultDetails {
  /** Wrong parameters: name to the rule that was broken. */
  readonly fields?: Readonly<Record<string, string>>
  /** What to do next, in a sentence. Shown by the CLI below the text. */
  readonly remedy?: string
  /** Goes to the log, never to the user. */
  readonly cause?: unknown
}

export class Fault extends Error {
  override readonly name = 'Fault'
  readonly kind: FaultKind
  readonly fields: Readonly<Record<string, string>> | undefined
  readonly remedy: string | undefined

  constructor(kind: FaultKind, message: string, details: FaultDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.kind = kind
    this.fields = details.fields
    this.remedy = details.remedy
  }
}

/** `storage 'fast' does not exist`: the wording Terraform's provider recognises as "gone". */
export function missing(what: string, name: string | number, details?: FaultDetails): Fault {
  return new Fault('missing', `${what} '${name}' does not exist`, details)
}

/** One or more wrong parameters, in the wording every Proxmox VE client knows. */
export function invalid(fields: Readonly<Record<string, string>>, details: Omit<FaultDetails, 'fields'> = {}): Fault {
  return new Fault('invalid', 'Parameter verification failed.', { ...details, fields })
}

export function isFault(error: unknown, kind?: FaultKind): error is Fault {
  return error instanceof Fault && (kind === undefined || error.kind === kind)
}

/** The text of anything that was thrown. */
export function messageOf(thrown: unknown): string {
  const error = asOne(thrown)
  return error instanceof Error ? error.message : String(error)
}

/**
 * What `using` throws when letting go fails after something else did says nothing of either: then the first, with the text of the
 * other. Anything else, and a mistake of ours, as it is.
 */
export function asOne(thrown: unknown): unknown {
  if (!(thrown instanceof SuppressedError)) return thrown
  const first = asOne(thrown.suppressed)
  return first instanceof Fault ? failedTwice(first, asOne(thrown.error)) : first
}

/** The first failure, with the text of the one that came while it was cleaned up after. */
export function failedTwice(first: unknown, second: unknown): Fault {
  const { kind, fields, remedy } = first instanceof Fault ? first : new Fault('failed', '')
  const texts = new Set([messageOf(first), messageOf(second)])
  const next = (second instanceof Fault ? second.remedy : undefined) ?? remedy
  return new Fault(kind, [...texts].join('; '), {
    cause: [first, second],
    ...(fields && { fields }),
    ...(next !== undefined && { remedy: next }),
  })
}

/** The text with every field that is wrong: by itself it says only that something is. */
export function wholeMessageOf(error: unknown): string {
  const fields = isFault(error) ? Object.entries(error.fields ?? {}).map(([name, rule]) => `${name}: ${rule}`) : []
  return [messageOf(error), ...fields].join(' ')
}
