/**
 * Access on a store in memory, with a clock that stands still until it is told or slept on. For tests.
 *
 * Passwords are as cheap as argon2 allows here: what the tests ask is whether they are checked, not how long
 * a guesser would need.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { createLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import type { Argv, Host, RunOptions, RunResult } from '#host/host.ts'
import { openMemoryStore } from '#store/memory.ts'
import type { Store } from '#store/store.ts'
import type { Grant } from './grant.ts'
import { userIdentity } from './identity.ts'
import { RealmService } from './realm-service.ts'
import { type AccessNeeds, AccessService } from './service.ts'
import { AccessState } from './world.ts'

export const cheap = { memoryKiB: 8, passes: 1, lanes: 1 }

/** Sleeping moves it on at once. */
export class HeldClock implements Clock {
  #now: number

  constructor(now = Date.UTC(2026, 10, 20, 10)) {
    this.#now = now
  }

  now = (): number => this.#now
  monotonic = (): number => this.#now
  sleep = async (ms: number): Promise<void> => this.pass(ms)
  pass(ms: number): void {
    this.#now += ms
  }
}

export interface SmallWorld extends AsyncDisposable {
  readonly access: AccessService
  readonly realms: RealmService
  readonly store: Store
  readonly clock: HeldClock
  readonly keysDir: string
  /** Every line that was logged. */
  readonly logged: string[]
  /** A second service on the same store and keys: another process. */
  readonly another: () => AccessService
}

/** The identity of root@pam in person. */
export const rootInPerson = userIdentity('root@pam')

export async function smallWorld(changes: Partial<Omit<AccessNeeds, 'accessState'>> = {}): Promise<SmallWorld> {
  const keysDir = await mkdtemp(join(tmpdir(), 'hako-access-'))
  const clock = new HeldClock()
  const store = openMemoryStore()
  const logged: string[] = []
  const needs = {
    store,
    clock,
    random: systemRandom,
    keysDir,
    host: noHost,
    log: createLog((line) => logged.push(line), 'debug'),
    passwordCost: cheap,
    ...changes,
  }
  const accessState = new AccessState(store)
  return {
    access: new AccessService({ ...needs, accessState }),
    realms: new RealmService({ store, accessState }),
    store,
    clock,
    keysDir,
    logged,
    another: () => new AccessService({ ...needs, accessState: new AccessState(store) }),
    async [Symbol.asyncDispose]() {
      await store[Symbol.asyncDispose]()
      await rm(keysDir, { recursive: true })
    },
  }
}

/** A machine on which nothing is expected to run. */
const noHost: Host = {
  run: async ([program]: Argv, _options?: RunOptions): Promise<RunResult> => {
    throw new Error(`nobody expected '${program}' to run`)
  },
}

export const bob = userIdentity('bob@pve')
export const bobsPassword = 'correct horse battery'

/** A small world with these users, who all have the password `bobsPassword`. */
export async function worldOf(...users: readonly string[]): Promise<SmallWorld> {
  const world = await smallWorld()
  for (const userid of users) await world.access.createUser(userid, { password: bobsPassword })
  return world
}

type Subjects = Pick<Grant, 'users' | 'groups' | 'tokens'>

export function give({ access }: SmallWorld, path: string, roleid: string, to: Subjects): Promise<void> {
  return access.changeAcl(rootInPerson, { path, roles: [roleid], ...to, propagate: true, isRemoval: false })
}

export function take({ access }: SmallWorld, path: string, roleid: string, from: Subjects): Promise<void> {
  return access.changeAcl(rootInPerson, { path, roles: [roleid], ...from, propagate: true, isRemoval: true })
}

/** For `assert.rejects`: a fault that names this parameter with such a text. */
export const invalidField = (field: string, text: RegExp) => (error: unknown) =>
  isFault(error, 'invalid') && text.test(error.fields?.[field] ?? '')
