/** Debian's Ansible, unmodified: plays a playbook and tells what became of each task. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { ownBridge } from '../../src/settings.ts'
import type { TestNode } from '../node-under-test.ts'

const plays = join(import.meta.dirname, 'ansible')
const sshKey = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE1XbQeTh1sNbHc2yTq3rR4eXl0e6fN7n7YkZ0gk2w9h deploy@example'

export interface Outcome {
  readonly changed?: boolean
  readonly msg?: string
  readonly skipped?: boolean
  readonly [fact: string]: unknown
}

export const environment = (scratch: string) => ({
  PATH: '/usr/bin:/bin:/usr/sbin:/sbin',
  HOME: scratch,
  LC_ALL: 'C.UTF-8',
  ANSIBLE_STDOUT_CALLBACK: 'ansible.posix.json',
  ANSIBLE_LOCALHOST_WARNING: 'False',
  ANSIBLE_INVENTORY_UNPARSED_WARNING: 'False',
  ANSIBLE_PIPELINING: 'True',
  ANSIBLE_RETRY_FILES_ENABLED: 'False',
})

/** A user of the node with a token, in the variables all playbooks take. */
export async function automation({ api, settings }: TestNode): Promise<Record<string, unknown>> {
  const user = 'automation@pve'
  await api('POST', '/access/users', { userid: user })
  await api('PUT', '/access/acl', { path: '/', users: user, roles: 'Administrator' })
  const token = (await api('POST', `/access/users/${user}/token/ansible`, { privsep: '0' })) as { value: string }
  await api('POST', '/pools', { poolid: 'shop' })
  return {
    api_host: `127.0.0.1:${settings.apiPort}`,
    api_user: user,
    token_id: 'ansible',
    token_secret: token.value,
    node: settings.node,
    bridge: ownBridge(settings),
    ssh_key: sshKey,
  }
}

/** Plays a playbook; the outcome of each of its tasks by name. */
export async function play(
  name: string,
  { scratch, variables }: { readonly scratch: string; readonly variables: Readonly<Record<string, unknown>> },
): Promise<Record<string, Outcome>> {
  const facts = join(scratch, 'variables.json')
  await writeFile(facts, JSON.stringify({ ...variables, ansible_python_interpreter: '/usr/bin/python3' }))
  const argv = ['-i', 'localhost,', '-c', 'local', '-e', `@${facts}`, join(plays, name)]
  const said = await promisify(execFile)('/usr/bin/ansible-playbook', argv, {
    env: environment(scratch),
    timeout: 300_000,
    maxBuffer: 1 << 24,
  }).catch((error: { stdout?: string; stderr?: string }) => {
    const messages = (error.stdout ?? '').split('\n').filter((line) => /"(?:msg|name|stderr)": /.test(line))
    assert.fail(`${name}: ${error.stderr}\n${messages.join('\n')}`)
  })
  const { plays: played } = JSON.parse(said.stdout) as {
    plays: { tasks: { task: { name: string }; hosts: { localhost: Outcome } }[] }[]
  }
  return Object.fromEntries(
    played.flatMap(({ tasks }) => tasks.map(({ task, hosts }) => [task.name, hosts.localhost] as const)),
  )
}

export function changes(outcomes: Record<string, Outcome>): Record<string, boolean> {
  return Object.fromEntries(Object.entries(outcomes).map(([name, { changed }]) => [name, changed === true]))
}
