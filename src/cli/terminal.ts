/** Where the CLI's words go: results to standard output, everything else to standard error. */
import { createInterface } from 'node:readline/promises'
import { Writable } from 'node:stream'
import { Fault } from '#base/fault.ts'
import type { Language } from './text.ts'

export interface Terminal {
  readonly language: Language
  /** Columns, when standard output is a terminal. */
  readonly width: number | undefined
  readonly out: (text: string) => void
  /** What another program printed, as it is, to the stream it printed it to. */
  readonly write: (out: string, err: string) => void
  /** What is typed after a question, unseen; from a pipe, its first line. */
  readonly readSecret: (question: string) => Promise<string>
  /** All of standard input, at most `bytes`. @throws Fault `too-large` */
  readonly readInput: (bytes: number) => Promise<string>
  /** Progress; a transient line is replaced by the next one where a person watches, and dropped elsewhere. */
  readonly show: (line: string, isTransient?: boolean) => void
  /** Somebody sees transient lines. */
  readonly isWatched?: boolean
  /** Fires on Ctrl-C. */
  readonly signal: AbortSignal
}

export function processTerminal(language: Language): Terminal {
  const { stdout, stderr } = process
  // Whoever reads us has read enough.
  stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))
  const stop = new AbortController()
  process.once('SIGINT', () => stop.abort())
  let isOpen = false
  const show = (line: string, isTransient = false) => {
    if (isTransient && !stderr.isTTY) return
    stderr.write(
      `${isOpen ? '\r\u001B[K' : ''}${isTransient ? line.slice(0, (stderr.columns || 80) - 1) : `${line}\n`}`,
    )
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
    isWatched: stderr.isTTY,
    readSecret,
    readInput,
    signal: stop.signal,
  }
}

async function readSecret(question: string): Promise<string> {
  const { stdin, stderr } = process
  const isAsked = stdin.isTTY
  // Echoes nothing: what is typed goes nowhere but into the answer.
  const silence = new Writable({ write: (_part, _encoding, done) => done() })
  const lines = createInterface({ input: stdin, output: silence, terminal: isAsked })
  // Only now does the terminal keep to itself what is typed.
  if (isAsked) stderr.write(question)
  let isStopped = false
  lines.once('SIGINT', () => {
    isStopped = true
    lines.close()
  })
  try {
    for await (const line of lines) return line
    if (isStopped) throw new Fault('aborted', 'interrupted')
    throw new Fault('invalid', 'standard input ended before a secret was given')
  } finally {
    lines.close()
    if (isAsked) stderr.write('\n')
  }
}

/** What is typed after a question; nothing where nobody sits in front of it. @throws Fault `aborted` */
export async function typed(question: string): Promise<string | undefined> {
  const { stdin, stderr } = process
  if (!stdin.isTTY) return undefined
  const lines = createInterface({ input: stdin, output: stderr })
  const stop = new AbortController()
  lines.once('SIGINT', () => stop.abort())
  lines.once('close', () => stop.abort())
  try {
    return (await lines.question(question, { signal: stop.signal })).trim()
  } catch (cause) {
    if (stop.signal.aborted) throw new Fault('aborted', 'interrupted', { cause })
    throw cause
  } finally {
    lines.close()
  }
}

async function readInput(bytes: number): Promise<string> {
  const parts: Buffer[] = []
  let size = 0
  for await (const part of process.stdin as AsyncIterable<Buffer>) {
    size += part.length
    if (size > bytes)
      throw new Fault('too-large', `standard input is longer than the ${bytes} bytes that can be handed on`)
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}
