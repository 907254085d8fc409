/**
 * Named network namespaces, and running programs inside them.
 *
 * Programs enter by `nsenter --net=`, never by `ip netns exec`: the latter mounts a new `/sys` over the
 * old one and hides the control groups from whatever runs inside. Commands of the `ip` family enter by
 * their own `-netns` option.
 */
import { stat } from 'node:fs/promises'
import { Fault } from '#base/fault.ts'
import { codeOf } from '../files.ts'
import type { Argv, Host } from '../host.ts'
import { endProcess, startTimeOf } from '../programs/proc.ts'

const directory = '/run/netns'

/** Where something on the network is: in a named namespace, or in the machine's own. */
export interface NetworkPlace {
  readonly netns?: string | undefined
}

export function netnsPath(name: string): string {
  return `${directory}/${checked(name)}`
}

/** Makes `argv` run inside the namespace; without one it stays as it is. */
export function inNetns(netns: string | undefined, argv: Argv): Argv {
  return netns === undefined ? argv : ['nsenter', `--net=${netnsPath(netns)}`, ...argv]
}

/** Makes the namespace with its loopback up, or finds it. */
export async function createNetns(host: Host, name: string): Promise<void> {
  if (!(await netnsExists(name))) {
    // A crash between file and mount leaves a plain file, which `ip netns add` takes for a namespace.
    await deleteNetns(host, name)
    await host.run(['ip', 'netns', 'add', name])
  }
  await host.run(['ip', '-netns', name, 'link', 'set', 'lo', 'up'])
}

/** Whether the name stands for a real namespace: its file lies on another file system than its directory. */
export async function netnsExists(name: string): Promise<boolean> {
  try {
    const [file, parent] = await Promise.all([stat(netnsPath(name)), stat(directory)])
    return file.dev !== parent.dev
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return false
    throw cause
  }
}

/** Ends every process inside, then removes the namespace with all links in it. Idempotent. */
export async function removeNetns(host: Host, name: string): Promise<void> {
  if (await netnsExists(name)) {
    for (const pid of await processesIn(host, name)) await endProcess(pid, await startTimeOf(pid), { graceMs: 0 })
  }
  await deleteNetns(host, name)
}

/** Pids whose network is this namespace. */
export async function processesIn(host: Host, name: string): Promise<number[]> {
  const { stdout } = await host.run(['ip', 'netns', 'pids', checked(name)])
  return stdout.split('\n').filter(Boolean).map(Number)
}

/** Names of all namespaces of the machine. */
export async function listNetns(host: Host): Promise<string[]> {
  const { stdout } = await host.run(['ip', 'netns', 'list'])
  return parseNetnsList(stdout)
}

/** Lines such as `name` or `name (id: 3)`. */
export function parseNetnsList(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.split(' ')[0] ?? '')
    .filter(Boolean)
}

async function deleteNetns(host: Host, name: string): Promise<void> {
  try {
    await stat(netnsPath(name))
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return
    throw cause
  }
  await host.run(['ip', 'netns', 'delete', name])
}

function checked(name: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/.test(name)) {
    throw new Fault('invalid', `'${name}' is no name for a network namespace`)
  }
  return name
}
