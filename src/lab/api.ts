/**
 * The lab's way to its node: the same API every client has, over the local socket, where the kernel says
 * that root calls. The lab has no other door into the node.
 */
import { join } from 'node:path'
import { waitFor } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { apiClient } from '#rest/client.ts'
import { unixTransport } from '#rest/transport.ts'
import type { Settings } from '#settings.ts'

export type Params = Readonly<Record<string, unknown>>

export interface TaskEnd {
  readonly upid: string
  /** `OK`, `WARNINGS: 1`, or why it failed. */
  readonly exitstatus: string
}

export interface LabApi {
  /** `data` of the reply. @throws Fault of the kind the node named */
  readonly get: (path: string, params?: Params) => Promise<unknown>
  readonly post: (path: string, params?: Params) => Promise<unknown>
  readonly put: (path: string, params?: Params) => Promise<unknown>
  /** Waits for a task's end, telling each new line of its log. A task that failed is an answer. */
  readonly task: (upid: unknown, onLine?: (line: string) => void) => Promise<TaskEnd>
}

const taskLimitMs = 900_000

export function labApi(settings: Settings, signal: AbortSignal): LabApi & Disposable {
  const transport = unixTransport(join(settings.runDir, 'api.sock'))
  const { raw } = apiClient(transport.send)
  const call = async (method: string, path: string, params: Params = {}) =>
    (await raw(method, path, params, { signal })).data
  const get: LabApi['get'] = (path, params) => call('GET', path, params)
  return {
    get,
    post: (path, params) => call('POST', path, params),
    put: (path, params) => call('PUT', path, params),
    task: (upid, onLine = () => {}) => taskEnd(get, settings.node, asUpid(upid), onLine, signal),
    [Symbol.dispose]: () => transport[Symbol.dispose](),
  }
}

function asUpid(value: unknown): string {
  if (typeof value === 'string' && value.startsWith('UPID:')) return value
  throw new Fault('failed', `the node answered '${String(value)}' where a task's UPID was expected`)
}

async function taskEnd(
  get: LabApi['get'],
  node: string,
  upid: string,
  onLine: (line: string) => void,
  signal: AbortSignal,
): Promise<TaskEnd> {
  const path = `/nodes/${node}/tasks/${encodeURIComponent(upid)}`
  let told = 0
  return waitFor(
    async () => {
      const { status, exitstatus } = fieldsOf(await get(`${path}/status`))
      const lines = await get(`${path}/log`, { start: told, limit: 500 })
      for (const line of Array.isArray(lines) ? lines.map(fieldsOf) : []) {
        if (Number(line.n) <= told) continue
        told = Number(line.n)
        onLine(String(line.t))
      }
      return status === 'stopped' ? { upid, exitstatus: String(exitstatus) } : undefined
    },
    { what: `task ${upid}`, timeoutMs: taskLimitMs, everyMs: 100, signal },
  )
}

/** An object's fields, of which nothing is known yet. */
export function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? { ...value } : {}
}

/** A task's end that must be good. @throws Fault `failed` with the task's own words */
export function requireGood(what: string, { exitstatus }: TaskEnd): void {
  if (exitstatus !== 'OK' && !exitstatus.startsWith('WARNINGS')) throw new Fault('failed', `${what}: ${exitstatus}`)
}
