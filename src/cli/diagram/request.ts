/**
 * The way of a request through the parts of the node: it is made, through the public port as anybody's is, and each
 * part tells how long it had it. What nobody told is drawn as unknown.
 */
import { systemClock, waitFor } from '#base/clock.ts'
import { invalid, isFault } from '#base/fault.ts'
import type { Followed, Stop } from '#base/trace.ts'
import { traceHeader } from '#http/wire.ts'
import type { TransportReply } from '#rest/client.ts'
import { httpsTransport } from '#rest/transport.ts'
import { type Architecture, partOf } from '#views/architecture/graph.ts'
import type { Connection } from '../connection.ts'
import { filledPath } from '../path.ts'
import type { RunFacts } from '../run-command.ts'
import { type Language, say } from '../text.ts'
import { shownAs } from './shown-as.ts'
import type { Way, WayStop } from './svg.ts'

interface Door {
  readonly url: string
  readonly certificate: string
  readonly ticket: string
  readonly CSRFPreventionToken: string
}

interface Request {
  readonly method: string
  readonly path: string
  readonly params: Readonly<Record<string, string>>
}

/** Longer than tasks of a request somebody draws should take. */
const taskMs = 600_000
/** A task writes its way down when it has ended. */
const wayMs = 3_000

/** @param text as for `hako api`: `GET /nodes/lab/qemu`, `POST /nodes/lab/qemu/100/status/start` */
export async function wayOfRequest(
  text: string,
  architectureNow: () => Promise<Architecture>,
  { connection, terminal }: RunFacts,
): Promise<{ readonly way: Way; readonly architecture: Architecture }> {
  const request = requestIn(text)
  const door = (await connection.call('POST', '/hako/front-ticket')).data as Door
  const { reply, ms } = await made(request, door, terminal.signal)
  const timings = timingsIn(reply)
  const task = await taskOf(reply, connection, terminal.signal)
  // As it is after the request, which may have changed it.
  const architecture = await architectureNow()
  const drawn: Architecture = {
    ...architecture,
    parts: [partOf('client', 'hako', { state: 'ok' }), ...architecture.parts],
    edges: [{ from: 'client/hako', to: 'front', type: 'connects to' }, ...architecture.edges],
  }
  const stops = stopsOf({ ms, timings, task }, drawn, terminal.language)
  const { language } = terminal
  const answered = say(
    language,
    'wayOfRequest',
    text.slice(0, 90),
    `${reply.status} ${reply.reason.slice(0, 40)}`.trim(),
    inMs(ms),
  )
  const ofTask = task?.way ? say(language, 'wayOfTask', inMs(task.way.ms)) : ''
  return { way: { title: `${answered}${ofTask}`, stops }, architecture: drawn }
}

function requestIn(text: string): Request {
  const [method = '', path = '', ...rest] = text.trim().split(/\s+/)
  const [bare = '', query = ''] = path.split('?', 2)
  if (!/^(?:GET|POST|PUT|DELETE)$/.test(method) || !bare.startsWith('/')) {
    throw invalid({ request: `'${text}' is no request such as 'GET /nodes/lab/qemu/100/status/current'` })
  }
  const wrong = rest.find((pair) => !/^[\w-]+=/.test(pair))
  if (wrong !== undefined) throw invalid({ request: `'${wrong}' is not name=value` })
  const pairs = rest.map((pair): [string, string] => [
    pair.slice(0, pair.indexOf('=')),
    pair.slice(pair.indexOf('=') + 1),
  ])
  return { method, path: bare, params: Object.fromEntries([...new URLSearchParams(query), ...pairs]) }
}

async function made(
  { method, path, params }: Request,
  { url, certificate, ticket, CSRFPreventionToken }: Door,
  signal: AbortSignal,
): Promise<{ readonly reply: TransportReply; readonly ms: number }> {
  using transport = httpsTransport({ url, certificate, isKnown: true })
  const [form, hasBody] = [new URLSearchParams(params).toString(), method === 'POST' || method === 'PUT']
  const target = `/api2/json${path}${hasBody || form === '' ? '' : `?${form}`}`
  const body = { 'Content-Type': 'application/x-www-form-urlencoded', 'Content-Length': String(form.length) }
  const headers = {
    Cookie: `PVEAuthCookie=${encodeURIComponent(ticket)}`,
    CSRFPreventionToken,
    [traceHeader]: '1',
    ...(hasBody ? body : {}),
  }
  const fromMs = systemClock.monotonic()
  const reply = await transport.send({ method, target, headers, signal, ...(hasBody ? { body: form } : {}) })
  return { reply, ms: systemClock.monotonic() - fromMs }
}

interface Timing {
  readonly name: string
  readonly ms: number
  readonly said: string
}

/** `store;dur=0.4;desc="read x3"`, several with commas between. */
function timingsIn({ headers }: TransportReply): Timing[] {
  const text = String(headers['server-timing'] ?? '')
  return [...text.matchAll(/([\w-]+);dur=([\d.]+)(?:;desc="([^"]*)")?/g)].map(([, name = '', ms, said = '']) => ({
    name,
    ms: Number(ms),
    said,
  }))
}

/** The way of the task the reply names, once it has ended. */
async function taskOf(reply: TransportReply, connection: Connection, signal: AbortSignal): Promise<Task | undefined> {
  const upid = /^\{"data":"(UPID:[^"]+)"/.exec(reply.body)?.[1]
  if (upid === undefined) return undefined
  const path = `/nodes/${upid.split(':')[1] ?? ''}/tasks/${encodeURIComponent(upid)}/status`
  const isOver = async () => {
    const { data } = await connection.call('GET', path, {}, { signal })
    return (data as { readonly status?: unknown }).status === 'stopped'
  }
  await waitFor(isOver, { what: `end of ${upid}`, timeoutMs: taskMs, everyMs: 100, signal })
  const told = async () => {
    try {
      const { data } = await connection.call('GET', filledPath('/hako/ways/{upid}', { upid }), {}, { signal })
      return data as Followed
    } catch (error) {
      if (isFault(error, 'missing')) return undefined
      throw error
    }
  }
  const way = await waitFor(told, { what: `way of ${upid}`, timeoutMs: wayMs, signal }).catch((error: unknown) => {
    if (isFault(error, 'timeout')) return undefined
    throw error
  })
  return { way }
}

interface Task {
  /** Absent where the task did not tell. */
  readonly way: Followed | undefined
}

interface Measured {
  /** From the first byte the client sent to the last it got. */
  readonly ms: number
  readonly timings: readonly Timing[]
  readonly task: Task | undefined
}

function stopsOf({ ms, timings, task }: Measured, architecture: Architecture, language: Language): WayStop[] {
  const of = (name: string) => timings.find((one) => one.name === name)?.ms
  const [front, daemon, own] = [of('front'), of('daemon'), of('daemon-own')]
  const unknown = say(language, 'wayUnknown')
  const less = (whole: number | undefined, inner: number | undefined) =>
    whole === undefined || inner === undefined ? unknown : inMs(Math.max(0, whole - inner))
  const stops: WayStop[] = [
    { part: 'client/hako', says: less(ms, front) },
    { part: 'front', from: 'client/hako', says: less(front, daemon) },
    { part: 'daemon', from: 'front', says: own === undefined ? unknown : inMs(own) },
  ]
  const inDaemon = timings.flatMap(({ name, ms: took, said }): Stop[] => {
    const [, what = '', times = '1'] = /^(.*) x(\d+)$/.exec(said) ?? []
    const passed = (['store', 'qmp', 'program', 'task'] as const).find((one) => one === name)
    return passed ? [{ passed, name: what, ms: took, times: Number(times) }] : []
  })
  stops.push(...places(inDaemon, 'daemon', architecture, language))
  if (task) {
    const says = say(language, 'wayTask', task.way ? inMs(task.way.ownMs) : unknown)
    stops.push({ part: 'task', from: 'daemon', says })
    stops.push(...places(task.way?.stops ?? [], 'task', architecture, language))
  }
  return together(stops, language)
}

/** Several of the same kind are one part in the picture. */
function places(stops: readonly Stop[], from: string, architecture: Architecture, language: Language): WayStop[] {
  return stops.map(({ passed, name, ms, times }) => {
    const count = times > 1 ? ` (${times}×)` : ''
    return {
      part: placeOf(passed, name, architecture),
      from,
      says: `${saidOf(passed, name, language)}${inMs(ms)}${count}`,
    }
  })
}

function placeOf(passed: Stop['passed'], name: string, architecture: Architecture): string {
  if (passed === 'store') return 'state'
  if (passed === 'qmp') return shownAs(`vm/${name}`, architecture)
  if (passed === 'task') return 'task'
  if (name.startsWith('qemu')) return 'qemu'
  return name.startsWith('lxc') ? 'lxc' : 'kernel'
}

function saidOf(passed: Stop['passed'], name: string, language: Language): string {
  if (passed === 'qmp') return 'QMP '
  if (passed === 'store') return `${say(language, name === 'write' ? 'wayWrites' : 'wayReads')} `
  return passed === 'program' ? `${name} ` : ''
}

/** A part has one place in the picture, and says everything that was measured there. */
function together(stops: readonly WayStop[], language: Language): WayStop[] {
  return [...Map.groupBy(stops, ({ part }) => part)].flatMap(([part, own]) => {
    const [first] = own
    const isOfBoth = part !== 'task' && new Set(own.map(({ from }) => from)).size > 1
    const says = own.map((one) =>
      isOfBoth && one.from === 'task' ? say(language, 'wayTask', one.says ?? '') : (one.says ?? ''),
    )
    const more = says.length > 3 ? [...says.slice(0, 2), `+${says.length - 2}`] : says
    return first ? [{ ...first, says: more.join(', ') }] : []
  })
}

function inMs(ms: number): string {
  return ms < 10 ? `${ms.toFixed(2)} ms` : ms < 1_000 ? `${ms.toFixed(1)} ms` : `${(ms / 1_000).toFixed(2)} s`
}
