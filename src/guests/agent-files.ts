/**
 * Files and programs in a guest, through its agent. Everything crosses as base64; a file is closed in the
 * guest whatever happens, or its agent runs out of handles.
 */
import { limits } from '#base/limits.ts'
import type { AgentClient } from '#host/qemu/guest-agent.ts'

type Agent = Pick<AgentClient, 'execute'>

/** Agents refuse, or break at, much larger pieces. */
const pieceBytes = 1024 * 1024

export interface GuestFile {
  readonly content: Buffer
  /** The file goes on behind what was read. */
  readonly isTruncated: boolean
}

export async function readGuestFile(
  agent: Agent,
  path: string,
  {
    offset = 0,
    count = limits.agent.fileBytes,
  }: { readonly offset?: number | undefined; readonly count?: number | undefined } = {},
): Promise<GuestFile> {
  const handle = await agent.execute<number>('guest-file-open', { path, mode: 'r' })
  try {
    if (offset > 0) await agent.execute('guest-file-seek', { handle, offset, whence: 'set' })
    const pieces: Buffer[] = []
    let left = count
    while (left > 0) {
      const piece = await agent.execute<{ 'buf-b64': string; eof: boolean }>('guest-file-read', {
        handle,
        count: Math.min(left, pieceBytes),
      })
      const bytes = Buffer.from(piece['buf-b64'], 'base64')
      pieces.push(bytes)
      left -= bytes.length
      if (piece.eof || bytes.length === 0) return { content: Buffer.concat(pieces), isTruncated: false }
    }
    // The bound is reached; one more byte tells whether the file ends right here.
    const more = await agent.execute<{ count: number }>('guest-file-read', { handle, count: 1 })
    return { content: Buffer.concat(pieces), isTruncated: more.count > 0 }
  } finally {
    await agent.execute('guest-file-close', { handle })
  }
}

/** Replaces the file's content. */
export async function writeGuestFile(agent: Agent, path: string, content: Buffer): Promise<void> {
  const handle = await agent.execute<number>('guest-file-open', { path, mode: 'w' })
  try {
    for (let at = 0; at < content.length;) {
      const piece = content.subarray(at, at + pieceBytes).toString('base64')
      const { count } = await agent.execute<{ count: number }>('guest-file-write', { handle, 'buf-b64': piece })
      at += count
    }
    await agent.execute('guest-file-flush', { handle })
  } finally {
    await agent.execute('guest-file-close', { handle })
  }
}

/** Starts a program in the guest and returns its pid there. */
export async function startInGuest(agent: Agent, command: readonly string[], input?: string): Promise<number> {
  const [path, ...arg] = command
  const { pid } = await agent.execute<{ pid: number }>('guest-exec', {
    path,
    arg,
    'capture-output': true,
    ...(input === undefined ? {} : { 'input-data': Buffer.from(input, 'utf8').toString('base64') }),
  })
  return pid
}

interface AgentExecStatus {
  readonly exited: boolean
  readonly exitcode?: number
  readonly signal?: number
  readonly 'out-data'?: string
  readonly 'err-data'?: string
  readonly 'out-truncated'?: boolean
  readonly 'err-truncated'?: boolean
}

/** State of a started program; its output as text, only once and only when it has ended. */
export async function statusInGuest(agent: Agent, pid: number): Promise<AgentExecStatus> {
  const status = await agent.execute<AgentExecStatus>('guest-exec-status', { pid })
  const text = (data: string | undefined) =>
    data === undefined ? undefined : Buffer.from(data, 'base64').toString('utf8')
  const [out, err] = [text(status['out-data']), text(status['err-data'])]
  return {
    ...status,
    ...(out === undefined ? {} : { 'out-data': out }),
    ...(err === undefined ? {} : { 'err-data': err }),
  }
}
