/**
 * The machine, as the rest sees it: one verb that runs a program. Everything in `host/` is built on it.
 *
 * Argument vectors only, never a shell; always a time limit and an output limit. `host/exec.ts` is the
 * real one; a test replays recorded output through the same interface.
 */
export interface RunOptions {
  readonly timeoutMs?: number
  readonly signal?: AbortSignal | undefined
  /** Given on standard input; the place for secrets, which never go into arguments. */
  readonly input?: string | Uint8Array
  /** Exit codes that are an answer rather than a failure. Default: only 0. */
  readonly okCodes?: readonly number[]
  readonly outputBytes?: number
  readonly cwd?: string
  /** Added to a minimal environment (PATH, LC_ALL=C.UTF-8). */
  readonly env?: Readonly<Record<string, string>>
  /** Called with each complete line of standard output and error as it appears. */
  readonly onLine?: (line: string) => void
}

export interface RunResult {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export type Argv = readonly [string, ...string[]]

export interface Host {
  /**
   * Runs a program to its end.
   * @throws Fault `failed` for another exit code (text: program and the last line of its stderr),
   *   `missing` when the program is not installed, `timeout`, `aborted`.
   */
  readonly run: (argv: Argv, options?: RunOptions) => Promise<RunResult>
}
