/** Where the CLI's words go: results to standard output, everything else to standard error. */
import type { Language } from './text.ts'

export interface Terminal {
  readonly language: Language
  /** Columns, when standard output is a terminal. */
  readonly width: number | undefined
  readonly out: (text: string) => void
  /** What another program printed, as it is, to the stream it printed it to. */
  readonly write: (out: string, err: string) => void
  /** Progress; a transient line is replaced by the next one where a person watches, and dropped elsewhere. */
  readonly show: (line: string, isTransient?: boolean) => void
  /** Fires on Ctrl-C. */
  readonly signal: AbortSignal
}

export function processTerminal(language: Language): Terminal {
  const { stdout, stderr } = process
  const stop = new AbortController()
  process.once('SIGINT', () => stop.abort())
  let isOpen = false
  const show = (line: string, isTransient = false) => {
    if (isTransient && !stderr.isTTY) return
    stderr.write(`${isOpen ? '\r\u001B[K' : ''}${line}${isTransient ? '' : '\n'}`)
    isOpen = isTransient
  }
  return {
    language,
    width: stdout.isTTY ? stdout.columns : undefined,
    out: (text) => {
      if (isOpen) stderr.write('\r\u001B[K')
      isOpen = false
      stdout.write(`${text}\n`)
    },
    write: (out, err) => {
      stdout.write(out)
      stderr.write(err)
    },
    show,
    signal: stop.signal,
  }
}
