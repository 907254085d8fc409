/**
 * An endpoint is one value. Router, validation, rights, proxying, both API descriptions, the typed
 * client and the CLI command all read it, so none of them can disagree.
 */
import type { Readable } from 'node:stream'
import type { Properties, Schema, Static, StaticProperties } from '#base/schema/schema.ts'

export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'

/**
 * A right that must be held, judged over raw parameters before the request is proxied. `{name}` in a
 * path is replaced by that parameter.
 */
export type Permission =
  | { readonly kind: 'world' } //       no login needed
  | { readonly kind: 'anyone' } //      any login; the handler filters what it returns
  | { readonly kind: 'root' } //        root@pam alone, never a token
  | {
      readonly kind: 'check'
      readonly path: string
      readonly privileges: readonly string[]
      readonly needs: 'all' | 'any'
    }
  | { readonly kind: 'self'; readonly param: string } // the caller is the user named by that parameter
  | { readonly kind: 'modify'; readonly path: string } // may change permissions on the path
  | { readonly kind: 'all' | 'any'; readonly of: readonly Permission[] }

export const world: Permission = { kind: 'world' }
export const anyone: Permission = { kind: 'anyone' }
export const rootOnly: Permission = { kind: 'root' }
/** All of the privileges on the path. */
export function check(privileges: string | readonly string[], path: string): Permission {
  return { kind: 'check', path, privileges: typeof privileges === 'string' ? [privileges] : privileges, needs: 'all' }
}
/** At least one of the privileges on the path. */
export function checkAny(privileges: readonly string[], path: string): Permission {
  return { kind: 'check', path, privileges, needs: 'any' }
}
export const self = (param: string): Permission => ({ kind: 'self', param })
export const mayModify = (path: string): Permission => ({ kind: 'modify', path })
export const all = (...of: readonly Permission[]): Permission => ({ kind: 'all', of })
export const any = (...of: readonly Permission[]): Permission => ({ kind: 'any', of })

/** Further rights that depend on *checked* parameters; judged on the node that executes. */
export interface AlsoNeeds<P extends Properties> {
  /** In words, for the descriptions. */
  readonly says: string
  readonly of: (params: StaticProperties<P>) => readonly Permission[]
}

/** Where and how to see the end of something an endpoint only starts. */
export interface Follow {
  /** GET, with the path parameters of the first call. Absent: the first reply tells of the end already. */
  readonly path?: string
  /** Member of the first reply that becomes a parameter of the same name. */
  readonly by?: string
  /** Parameter of the first call that takes standard input, and its bound in bytes. */
  readonly input: string
  readonly inputBytes: number
  /** Members of the reply: true at the end; what was printed; whether it was cut; the exit code or signal. */
  readonly ended?: string
  readonly out: string
  readonly err: string
  readonly cut: readonly string[]
  readonly code: string
  readonly killedBy?: string
}

/** How the CLI offers an endpoint: `hako vm start 100`. */
export interface CliHints {
  /** Noun and verb: `['vm', 'start']`. */
  readonly command: readonly [string, ...string[]]
  /** Path or other parameters given by position, in order; the rest are `--options`. */
  readonly positional?: readonly string[]
  /** Columns of the table, in order; all columns appear in JSON. */
  readonly columns?: readonly string[]
  /** The column printed by `-o id`. */
  readonly id?: string
  /** Example command lines for `--help`, without the leading `hako`. */
  readonly examples?: readonly string[]
  /** The work goes on after the reply: the CLI asks there until it has ended, then prints what it printed. */
  readonly follow?: Follow
  /** The parameter whose value must be typed again (`--confirm 100`) because this destroys. */
  readonly destroys?: string
  /** With `--dry-run` the same path is asked with GET, which says what would be done; its columns, and that of ids. */
  readonly dryRun?: { readonly columns: readonly string[]; readonly id: string }
  /** It destroys only when this parameter is set. */
  readonly destroysWhen?: string
  /** Member of the reply (of each row, in a list) that is text to be printed as it is. */
  readonly raw?: string
  /** Where the bytes of the reply go: the parameter that names them on the node, and the one given to the command alone. */
  readonly saves?: { readonly from: string; readonly to: string }
  /** The reply is printed as the file a viewer opens. */
  readonly isViewerFile?: boolean
  /** What the command gives where a person gives nothing, unlike the API. */
  readonly defaults?: Readonly<Record<string, string>>
  /** The parameter the command finds a value for where none is given, which begins like this; it tells what it is. */
  readonly chooses?: { readonly option: string; readonly prefix: string }
  /** Options taken for other programs' sake: `--help` names them, and says no more. */
  readonly unlisted?: readonly string[]
  /** The reply opens a terminal: the CLI takes it at this path, and its own terminal becomes that one. */
  readonly terminal?: string
  /** Parameters for which a person names a file: its text is what is sent. */
  readonly files?: readonly string[]
  /** Member of the reply that says whether a proof holds: exit code 7 when it does not. */
  readonly proves?: string
}

export interface EndpointDefinition<P extends Properties, R extends Schema, Call> {
  readonly method: Method
  /** As PVE writes it: `/nodes/{node}/qemu/{vmid}/config`. A last `{name*}` takes the rest of the path, slashes included. */
  readonly path: string
  /** One sentence of our own. */
  readonly description: string
  readonly params: P
  readonly permission: Permission
  readonly alsoNeeds?: AlsoNeeds<P>
  readonly returns: R
  /** The parameter naming the node that must execute the call. */
  readonly proxyTo?: 'node'
  /** Answer 403 to API tokens. */
  readonly refusesTokens?: boolean
  /** Unknown parameters pass. */
  readonly allowsExtra?: boolean
  /** Our own addition, not in PVE's contract: left out of the PVE-shaped description's conformance. */
  readonly isOwn?: boolean
  /** Multipart upload: the front streams the file to disk and hands over its path as `tmpfilename`. */
  readonly isUpload?: boolean
  /** The reply is bytes as they come, of any number: a `Streamed`. Nothing but a connection of its own carries it. */
  readonly isStreamed?: boolean
  readonly cli?: CliHints
  /**
   * For what is asked often: the answer follows from the store, from who runs, and from what may be a second old. It
   * may be given again within the running second while the store's mark stays the same.
   */
  readonly isKept?: boolean
  readonly handle: (params: StaticProperties<P>, call: Call) => Promise<Answer<Static<R>>> | Answer<Static<R>>
}

/** The value of `data`, or that value with what stands beside it. */
export type Answer<T> = T | Reply<T>

export class Reply<T> {
  readonly data: T
  readonly beside: { readonly total?: number; readonly changes?: string }
  constructor(data: T, beside: { readonly total?: number; readonly changes?: string }) {
    this.data = data
    this.beside = beside
  }
}

/** A file sent as it is instead of JSON (task log download). */
export class Download extends Reply<never> {
  readonly fileName: string
  readonly text: string
  constructor(fileName: string, text: string) {
    super(undefined as never, {})
    this.fileName = fileName
    this.text = text
  }
}

/** Bytes sent as they come. Whoever sends them reads them to their end, or destroys them. */
export class Streamed extends Reply<never> {
  readonly fileName: string
  readonly bytes: Readable
  /** How many, where that is known before; a reply that ends earlier is broken off, never whole. */
  readonly sizeBytes: number | undefined
  constructor(fileName: string, bytes: Readable, sizeBytes?: number) {
    super(undefined as never, {})
    this.fileName = fileName
    this.bytes = bytes
    this.sizeBytes = sizeBytes
  }
}

/** An endpoint of any shape, as router and descriptions see it. */
export type Endpoint<Call> = Omit<EndpointDefinition<Properties, Schema, Call>, 'handle' | 'alsoNeeds'> & {
  readonly alsoNeeds?: { readonly says: string; readonly of: (params: never) => readonly Permission[] }
  readonly handle: (params: never, call: Call) => unknown
}

/** Binds `endpoint` to the kind of call its handlers get; `api/call.ts` does it once. */
export function endpointsOf<Call>() {
  return <const P extends Properties, R extends Schema, const M extends Method, const Path extends string>(
    definition: EndpointDefinition<P, R, Call> & { readonly method: M; readonly path: Path },
  ): EndpointDefinition<P, R, Call> & { readonly method: M; readonly path: Path } => definition
}

/** Who calls, as proven by ticket, token or peer credentials. */
export interface Identity {
  /** `root@pam`, also when a token acts. */
  readonly user: string
  /** `root@pam!ci` when a token acts. */
  readonly token?: string
  /** Token if one acts, else user: the name rights are judged for. */
  readonly authId: string
  /** The task that acts, with the rights of whoever started it. */
  readonly task?: string
}

/** Answers "may this identity": the access service, as `rest/` sees it. */
export interface Judge {
  readonly isRoot: (who: Identity) => boolean
  /** Privileges held on one path: name to whether it propagates. */
  readonly privilegesOn: (who: Identity, path: string) => Promise<ReadonlyMap<string, boolean>>
}
