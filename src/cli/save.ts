/** A reply that is bytes goes into a file: whole under its name, or not at all; or on to standard output. */
import type { IncomingMessage } from 'node:http'
import { stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { humanSize, MiB } from '#base/bytes.ts'
import { Fault, isFault, messageOf } from '#base/fault.ts'
import { type FilePart, pour, writeNewFile } from '#host/files/new-file.ts'
import { endHeader, faultTrailer } from '#http/wire.ts'
import { queryOf, readReply } from '#rest/client.ts'
import { type Command, replacing } from '#rest/command.ts'
import type { Connection, Params } from './connection.ts'
import { exitCodes } from './exit.ts'
import { withoutPath } from './path.ts'
import type { Terminal } from './terminal.ts'

export interface SaveFacts {
  readonly command: Command
  readonly saves: { readonly from: string; readonly to: string }
  readonly path: string
  readonly params: Params
  readonly connection: Connection
  readonly terminal: Terminal
}

/** Between two pieces. */
const silenceMs = 200_000
const longestRefusal = MiB

export async function save({ command, saves, path, params, connection, terminal }: SaveFacts): Promise<number> {
  const { [saves.to]: to, [replacing]: isReplacing, ...asked } = params
  const query = queryOf(withoutPath(command.path, asked))
  const reply = await replyAt(connection.socketPath, `/api2/json${path}?${query}`, terminal.signal)
  if (to === '-') {
    await pipeline(reply, process.stdout, { end: false }).catch((cause: unknown) => {
      throw brokenOff(cause, terminal)
    })
    requireWhole(reply)
    return exitCodes.ok
  }
  const name = /filename="([^"]+)"/.exec(reply.headers['content-disposition'] ?? '')?.[1] ?? 'file'
  const target = to === undefined ? name : await inFolder(String(to), name)
  const fill = async ({ file }: FilePart) => {
    const bytes = await pour(file, [reply], terminal.signal)
    requireWhole(reply)
    return bytes
  }
  const remedy = 'Name another file, or replace this one with --force.'
  const bytes = await writeNewFile(target, fill, { replaces: isReplacing === '1', remedy }).catch((cause: unknown) => {
    reply.destroy()
    throw cause instanceof Fault ? cause : brokenOff(cause, terminal)
  })
  terminal.show(`${target}: ${humanSize(bytes)}`)
  return exitCodes.ok
}

async function inFolder(to: string, name: string): Promise<string> {
  const isFolder = await stat(to).then(
    (facts) => facts.isDirectory(),
    () => false,
  )
  return isFolder ? join(to, basename(name)) : to
}

/** @throws Fault as the node tells why it sent no more */
function requireWhole({ trailers }: IncomingMessage): void {
  const told = trailers[faultTrailer]
  if (told === undefined) return
  try {
    readReply({ status: 500, reason: '', headers: {}, body: decodeURIComponent(told) })
  } catch (fault) {
    if (!isFault(fault)) throw fault
    const { kind, message, remedy } = fault
    throw new Fault(kind, `the file did not come whole: ${message}`, remedy === undefined ? {} : { remedy })
  }
}

function brokenOff(cause: unknown, { signal }: Terminal): Fault {
  if (signal.aborted) return new Fault('aborted', 'interrupted', { cause })
  return new Fault('failed', `the file did not come whole: ${messageOf(cause)}`, {
    cause,
    remedy: 'The log of the node says why it ended; a smaller folder, or one file, takes less time.',
  })
}

/** The reply once it begins well. @throws Fault the node's own, or `unavailable` */
async function replyAt(socketPath: string, path: string, signal: AbortSignal): Promise<IncomingMessage> {
  // By name: an ordinary import reads every export, and reading one of them loads undici.
  const { request } = process.getBuiltinModule('node:http')
  const headers = { Host: 'localhost', [endHeader]: '1' }
  const reply = await new Promise<IncomingMessage>((resolve, reject) => {
    const asked = request({ socketPath, path, headers, timeout: silenceMs, signal }, resolve)
    asked.on('timeout', () => asked.destroy(new Error(`nothing came for ${silenceMs / 1000} s`)))
    asked.on('error', reject)
    asked.end()
  }).catch((cause: unknown) => {
    throw new Fault('unavailable', `the node at ${socketPath} cannot be reached: ${messageOf(cause)}`, { cause })
  })
  const { statusCode: status = 0, statusMessage: reason = '' } = reply
  if (status === 200) return reply
  const parts: Buffer[] = []
  let size = 0
  for await (const part of reply as AsyncIterable<Buffer>) {
    size += part.length
    if (size <= longestRefusal) parts.push(part)
  }
  readReply({ status, reason, headers: reply.headers, body: Buffer.concat(parts).toString('utf8') })
  throw new Fault('failed', `status ${status}: ${reason}`)
}
