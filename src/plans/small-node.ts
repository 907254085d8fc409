/** A small node for tests of runs: guests, backups, users and tasks, and an end at any moment. */
import { Fault } from '#base/fault.ts'
import type { RunState } from './run-state.ts'
import type { Call } from './world.ts'
import type { Value } from './value.ts'

export class Killed extends Error {}

/** A node with guests, backups and tasks; `killAt` counts calls and saves, each once before and once after its effect. */
export class SmallNode {
  readonly guests = new Map<string, string>([['100', 'running']])
  readonly backups: string[] = []
  readonly users = new Set<string>()
  readonly calls: string[] = []
  readonly tasks: { upid: string; parent: string }[] = []
  saved: RunState | undefined
  killAt = Infinity
  events = 0
  attempt = ''
  #made = 0

  #event(): void {
    this.events += 1
    if (this.events >= this.killAt) throw new Killed()
  }

  readonly save = async (state: RunState): Promise<void> => {
    this.#event()
    this.saved = state
  }

  readonly call = async ({ method, path, params }: Call): Promise<Value> => {
    this.#event()
    // As a real one reads it: what is encoded within a part is that part's.
    if (path.startsWith('/nodes/') && path.includes('%2F')) throw new Fault('missing', `'${path}' does not exist`)
    const plain = decodeURIComponent(path)
    if (method !== 'GET') this.calls.push(`${method} ${plain}`)
    const reply = this.#answer(method, plain, params)
    if (typeof reply === 'string' && reply.startsWith('UPID:'))
      this.tasks.unshift({ upid: reply, parent: this.attempt })
    if (method !== 'GET') this.#event()
    return reply
  }

  #task(): string {
    this.#made += 1
    return `UPID:n:${this.#made}`
  }

  #answer(method: string, path: string, params: Call['params']): Value {
    const [, id = ''] = /^\/nodes\/n\/qemu\/(\d+)/.exec(path) ?? []
    if (path.includes('/tasks/')) return { status: 'stopped', exitstatus: 'OK' }
    if (path.startsWith('/nodes/n/lxc/')) throw new Fault('missing', 'does not exist')
    if (path === '/nodes/n/vzdump') {
      this.backups.unshift(`local:backup/vm/100/${this.#made}`)
      return this.#task()
    }
    if (path === '/hako/backups') return this.backups.map((volid) => ({ volid }))
    if (path.startsWith('/hako/backups/')) {
      const at = this.backups.indexOf(path.slice('/hako/backups/'.length))
      if (at < 0) throw new Fault('missing', 'does not exist')
      return method === 'DELETE' ? (this.backups.splice(at, 1), this.#task()) : {}
    }
    if (path === '/hako/restore') {
      const vmid = String(params.vmid as number)
      if (this.guests.has(vmid)) throw new Fault('conflict', 'it exists')
      this.guests.set(vmid, 'stopped')
      return this.#task()
    }
    if (path.startsWith('/access/users')) {
      const user = String((params.userid as string | undefined) ?? path.split('/')[3])
      if (method === 'POST' && this.users.has(user)) throw new Fault('conflict', 'already exists')
      if (method === 'POST') return (this.users.add(user), null)
      if (!this.users.has(user)) throw new Fault('missing', 'does not exist')
      return method === 'DELETE' ? (this.users.delete(user), null) : {}
    }
    const status = this.guests.get(id)
    if (status === undefined) throw new Fault('missing', `guest ${id} does not exist`)
    if (path.endsWith('/start') || path.endsWith('/stop')) {
      this.guests.set(id, path.endsWith('/start') ? 'running' : 'stopped')
      return this.#task()
    }
    if (method === 'DELETE') return (this.guests.delete(id), this.#task())
    return { status }
  }

  remains(): unknown {
    return { guests: [...this.guests], backups: this.backups, users: [...this.users] }
  }
}
