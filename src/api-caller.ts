/**
 * How a task calls the API of its own node: over the local socket, as any program of this machine does, and with the
 * rights of whoever started it. The node takes the task at its word because root alone may say it, and because it can
 * only mean less than what root may do.
 *
 * A node that restarts is waited for: a call that was not sent is sent again. One that was sent and not answered is
 * not, because nobody knows whether it was heard.
 */
import { join } from 'node:path'
import { systemClock } from '#base/clock.ts'
import { Fault, isFault } from '#base/fault.ts'
import { limits } from '#base/limits.ts'
import { parseFor } from '#cli/arguments.ts'
import { findCommand } from '#cli/command-tree.ts'
import type { Connection } from '#cli/connection.ts'
import { followToEnd } from '#cli/follow.ts'
import { filledPath, withoutPath } from '#cli/path.ts'
import { paramsOf } from '#cli/run-command.ts'
import type { Terminal } from '#cli/terminal.ts'
import { taskHeader } from '#http/wire.ts'
import type { ApiCaller, Call, ResolvedCommand } from '#plans/world.ts'
import type { Value } from '#plans/value.ts'
import { apiClient } from '#rest/client.ts'
import type { Command, CommandList } from '#rest/command.ts'
import { unixTransport } from '#rest/transport.ts'
import type { Settings } from './settings.ts'

const [returnMs, askEveryMs] = [60_000, 200]

/** @param signal ends what waits without a signal of its own */
export function apiCaller({ runDir, node }: Settings, upid: string, signal: AbortSignal): ApiCaller {
  const socketPath = join(runDir, 'api.sock')
  const transport = unixTransport(socketPath, { timeoutMs: limits.plans.callTimeoutMs })
  const client = apiClient((request) =>
    transport.send({ ...request, headers: { ...request.headers, [taskHeader]: upid } }),
  )
  const call: ApiCaller['call'] = async ({ method, path, params }, until) => {
    const deadline = systemClock.monotonic() + returnMs
    for (;;) {
      try {
        // What a reply of JSON holds is a value.
        return (await client.raw(method, path, params, { signal: until })).data as Value
      } catch (error) {
        const mayCallAgain = isUnsent(error) || (method === 'GET' && isCutOff(error))
        if (!mayCallAgain || systemClock.monotonic() > deadline) throw error
      }
      await systemClock.sleep(askEveryMs, until)
    }
  }
  const connection: Connection = {
    socketPath,
    call: async (method, path, params = {}) => ({
      data: await call({ method: method as Call['method'], path, params }, signal),
    }),
  }
  return { call, command: (words) => resolved(words, connection, node, signal) }
}

async function resolved(
  words: readonly string[],
  connection: Connection,
  node: string,
  signal: AbortSignal,
): Promise<ResolvedCommand> {
  const typed = words.slice(0, 4).join(' ').slice(0, 256)
  const { data } = await connection.call('GET', '/hako/commands', { words: typed })
  const found = findCommand((data as CommandList).commands, words)
  if (!found) throw new Fault('invalid', `'hako ${words.join(' ')}' is no command of this node`)
  const { command, rest } = found
  demandPlain(command)
  const params = paramsOf(command, parseFor(command, rest), node)
  return {
    call: {
      method: command.method,
      path: filledPath(command.path, params),
      params: withoutPath(command.path, params) as Call['params'],
    },
    finish: async (reply, until) =>
      command.follow
        ? followed(command, reply, { params, connection, signal: AbortSignal.any([signal, until]) })
        : reply,
  }
}

/** A plan has no terminal, no files and no standard input. */
function demandPlain({ words, isUpload, saves, terminal, files, options }: Command): void {
  const isPlain = !isUpload && !saves && terminal === undefined && !files?.length
  const needsSecret = Object.values(options).some(({ isSecret, required }) => isSecret && required)
  if (isPlain && !needsSecret) return
  throw new Fault('invalid', `'hako ${words.join(' ')}' needs a terminal, a file or a secret, which a plan has not`, {
    remedy: 'Call the API instead: api, with the parameters below it.',
  })
}

/** What a program in a guest printed, and how it ended. */
async function followed(
  { follow }: Command,
  started: Value,
  facts: {
    readonly params: Record<string, string | string[]>
    readonly connection: Connection
    readonly signal: AbortSignal
  },
): Promise<Value> {
  if (!follow) return started
  const said = { out: '', err: '' }
  const terminal: Terminal = {
    language: 'en',
    width: undefined,
    out: () => {},
    show: () => {},
    write: (out, err) => void Object.assign(said, { out, err }),
    readSecret: async () => '',
    readInput: async () => '',
    signal: facts.signal,
  }
  const exitcode = await followToEnd({ ...facts, follow, started, terminal, timeoutSeconds: undefined })
  return { exitcode, out: said.out.trimEnd(), err: said.err.trimEnd() }
}

function causeCode(error: unknown): string {
  if (!isFault(error, 'unavailable')) return ''
  const { cause } = error
  return cause instanceof Error && 'code' in cause ? String(cause.code) : ''
}

/** `EAGAIN`: so many wait at its socket that there is no room for another. */
const isUnsent = (error: unknown) => ['ENOENT', 'ECONNREFUSED', 'EAGAIN'].includes(causeCode(error))
/** Carried faults have a cause; what the node itself says has none here. */
const isCutOff = (error: unknown) => isFault(error, 'unavailable') && error.cause !== undefined
