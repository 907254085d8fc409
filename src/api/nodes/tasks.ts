/** Tasks of one node. Everybody sees their own; Sys.Audit on the node shows all, Sys.Modify stops those of others. */
import { Fault, invalid } from '#base/fault.ts'
import { splitList } from '#base/schema/formats.ts'
import {
  array,
  boolean,
  enumOf,
  integer,
  nothing,
  number,
  object,
  optional,
  refine,
  string,
} from '#base/schema/schema.ts'
import { nodeName, upid, vmid } from '#base/schema/standard.ts'
import { type Call, endpoint } from '#api/call.ts'
import { anyone, Download, Reply } from '#rest/endpoint.ts'
import { isOwnedBy, statusTypes } from '#tasks/task.ts'
import { parseUpid } from '#tasks/upid.ts'

const identity = {
  upid,
  node: nodeName,
  pid: integer({ description: 'Process of the task.' }),
  pstart: integer({ description: 'Start of that process, in clock ticks after boot.' }),
  starttime: integer({ description: 'Start of the task, in seconds since 1970.' }),
  type: string({ description: 'Kind of task.' }),
  id: string({ description: 'What the task is about, often the number of a guest.' }),
  user: string({ description: 'Who started it.' }),
  tokenid: optional(string({ description: 'The token of that user which started it.' })),
}

/** An item of a list of tasks. */
export const taskItem = object({
  ...identity,
  endtime: optional(integer({ description: 'End, in seconds since 1970; absent while it runs.' })),
  status: optional(string({ description: 'How it ended; `RUNNING` while it runs.' })),
})

const time = integer({ minimum: 0, maximum: 0xffff_ffff })
const taskAt = { node: nodeName, upid }

const listTasks = endpoint({
  method: 'GET',
  path: '/nodes/{node}/tasks',
  description: 'Tasks of a node, newest first.',
  proxyTo: 'node',
  params: {
    node: nodeName,
    source: optional(
      enumOf(['archive', 'active', 'all'], { description: 'Finished, running, or all tasks.', default: 'archive' }),
    ),
    start: optional(integer({ description: 'Leave out that many.', minimum: 0, maximum: 1_000_000, default: 0 })),
    limit: optional(integer({ description: 'At most that many.', minimum: 0, maximum: 100_000, default: 50 })),
    userfilter: optional(string({ description: 'Part of the name of the user.', maxLength: 128 })),
    typefilter: optional(string({ description: 'Kind of task.', maxLength: 64 })),
    vmid: optional(refine(vmid, { description: 'Only tasks about this guest.' })),
    errors: optional(boolean({ description: 'Only tasks that did not end well.', default: false })),
    since: optional(refine(time, { description: 'Started at this time or later, in seconds since 1970.' })),
    until: optional(refine(time, { description: 'Started at this time or earlier, in seconds since 1970.' })),
    statusfilter: optional(
      string({
        description: `Only tasks that ended so: a list of ${statusTypes.join(', ')}.`,
        format: 'pve-task-status-type-list',
        maxLength: 128,
      }),
    ),
  },
  permission: anyone,
  returns: array(taskItem),
  cli: {
    command: ['task', 'list'],
    columns: ['starttime', 'endtime', 'type', 'id', 'user', 'status', 'upid'],
    id: 'upid',
    examples: ['task list', 'task list --source active', 'task list --vmid 100 --errors'],
  },
  handle: async ({ node, statusfilter, ...filter }, call) => {
    const outcomes = splitList(statusfilter ?? '')
    const { tasks, total } = await call.services.tasks.list({
      ...filter,
      statusfilter: outcomes.length === 0 ? undefined : outcomes,
      visibleTo: (await call.may(`/nodes/${node}`, 'Sys.Audit')) ? undefined : call.who.authId,
    })
    return new Reply(tasks, { total })
  },
})

const taskIndex = endpoint({
  method: 'GET',
  path: '/nodes/{node}/tasks/{upid}',
  description: 'What there is to ask about a task.',
  proxyTo: 'node',
  params: taskAt,
  permission: anyone,
  returns: array(object({ name: string() })),
  handle: async (at, call) => {
    await ownOrWith('Sys.Audit', at, call)
    return [{ name: 'log' }, { name: 'status' }]
  },
})

const taskStatus = endpoint({
  method: 'GET',
  path: '/nodes/{node}/tasks/{upid}/status',
  description: 'State of a task.',
  proxyTo: 'node',
  params: taskAt,
  permission: anyone,
  returns: object({
    ...identity,
    status: enumOf(['running', 'stopped']),
    exitstatus: optional(string({ description: '`OK`, `WARNINGS: n` or the error; only when stopped.' })),
    kind: optional(string({ description: 'Kind of the error, for programs.' })),
    remedy: optional(string({ description: 'What to do next.' })),
    phase: optional(string({ description: 'What it is doing.' })),
    fraction: optional(number({ description: 'How much of that is done.', minimum: 0, maximum: 1 })),
    rate: optional(number({ description: 'Bytes per second, where bytes are what it is about.', minimum: 0 })),
    left: optional(number({ description: 'Seconds it still takes at the pace so far.', minimum: 0 })),
  }),
  cli: {
    command: ['task', 'show'],
    positional: ['upid'],
    columns: ['type', 'id', 'user', 'starttime', 'status', 'exitstatus', 'phase', 'fraction', 'rate', 'left'],
    id: 'upid',
    examples: ['task show "$(hako task list -o id --limit 1)"'],
  },
  handle: (at, call) => ownOrWith('Sys.Audit', at, call),
})

const taskLog = endpoint({
  method: 'GET',
  path: '/nodes/{node}/tasks/{upid}/log',
  description: 'Log of a task, as numbered lines or as a file.',
  proxyTo: 'node',
  params: {
    ...taskAt,
    start: optional(
      integer({ description: 'Leave out that many lines.', minimum: 0, maximum: 0xffff_ffff, default: 0 }),
    ),
    limit: optional(
      integer({ description: 'At most that many; 0: all.', minimum: 0, maximum: 0xffff_ffff, default: 50 }),
    ),
    download: optional(boolean({ description: 'Send the whole log as a file; without start and limit.' })),
  },
  permission: anyone,
  returns: array(object({ n: integer({ minimum: 1 }), t: string() })),
  cli: {
    command: ['task', 'log'],
    raw: 't',
    defaults: { limit: '0' },
    positional: ['upid'],
    columns: ['t'],
    id: 'n',
    examples: ['task log "$(hako task list -o id --limit 1)" --limit 0'],
  },
  handle: async ({ start, limit, download, ...at }, call) => {
    await ownOrWith('Sys.Audit', at, call)
    if (download) return logFile(at.upid, { start, limit }, call)
    const { lines, total } = await call.services.tasks.log(at.upid, { start: start ?? 0, limit: limit ?? 50 })
    return new Reply([...lines], { total })
  },
})

const stopTask = endpoint({
  method: 'DELETE',
  path: '/nodes/{node}/tasks/{upid}',
  description: 'Stop a task: it undoes what it began.',
  proxyTo: 'node',
  params: taskAt,
  permission: anyone,
  returns: nothing,
  cli: {
    command: ['task', 'stop'],
    positional: ['upid'],
    examples: ['task stop "$(hako task list --source active -o id --limit 1)"'],
  },
  handle: async (at, call) => {
    await ownOrWith('Sys.Modify', at, call)
    await call.services.tasks.stop(at.upid)
    return null
  },
})

export const taskEndpoints = [listTasks, taskIndex, taskStatus, taskLog, stopTask]

/** The task's status, if it is the caller's own or the privilege is held on the node. */
async function ownOrWith(privilege: string, { node, upid: text }: { node: string; upid: string }, call: Call) {
  const status = await call.services.tasks.status(text)
  const path = `/nodes/${node}`
  if (isOwnedBy(status, call.who.authId) || (await call.may(path, privilege))) return status
  throw new Fault('denied', `Permission check failed (${path}, ${privilege})`)
}

async function logFile(
  text: string,
  page: { readonly start: number | undefined; readonly limit: number | undefined },
  call: Call,
): Promise<Download> {
  const named = Object.entries(page).filter(([, value]) => value !== undefined)
  const rule = 'a download is the whole log: it goes without this parameter'
  if (named.length > 0) throw invalid(Object.fromEntries(named.map(([name]) => [name, rule])))
  const { type, starttime } = parseUpid(text)
  const started = new Date(starttime * 1000).toISOString().replaceAll(':', '')
  return new Download(`task-${type}-${started}.log`, await call.services.tasks.rawLog(text))
}
