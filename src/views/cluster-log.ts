/**
 * The log of the cluster: beginning and end of every task, newest first, made from the tasks themselves, which are kept
 * anyway. Rejected: a second record of the same events, which could disagree.
 */
import { array, integer, object, string, type Static } from '#base/schema/schema.ts'
import type { TaskItem } from '#tasks/task.ts'

export const logEntries = array(
  object({
    uid: integer({ description: 'Number of the entry.' }),
    time: integer({ description: 'Seconds since 1970.' }),
    node: string({ description: 'Where it happened.' }),
    user: string({ description: 'Who did it.' }),
    tag: string({ description: 'Part of the platform that says so.' }),
    pri: integer({ description: 'As in syslog: 3 error, 4 warning, 6 information.' }),
    pid: integer({ description: 'Process.' }),
    id: string({ description: 'Unique.' }),
    msg: string({ description: 'What happened.' }),
  }),
)

type Entry = Static<typeof logEntries>[number]

export function logOf(tasks: readonly TaskItem[], most: number): Entry[] {
  const events = tasks.flatMap((task) => [
    begin(task),
    ...(task.endtime === undefined ? [] : [end(task, task.endtime)]),
  ])
  const sorted = events.toSorted((a, b) => a.time - b.time || a.pri - b.pri)
  return sorted
    .map((event, index) => ({ ...event, uid: index + 1 }))
    .toReversed()
    .slice(0, most)
}

const about = ({ node, user, pid }: TaskItem) => ({ node, user, pid, tag: 'task' })

function begin(task: TaskItem): Omit<Entry, 'uid'> {
  return { ...about(task), time: task.starttime, pri: 6, id: `${task.upid}begin`, msg: `starting task ${task.upid}` }
}

function end(task: TaskItem, time: number): Omit<Entry, 'uid'> {
  const pri = task.status === 'OK' ? 6 : task.status.startsWith('WARNINGS') ? 4 : 3
  return { ...about(task), time, pri, id: `${task.upid}end`, msg: `end task ${task.upid} ${task.status}` }
}
