/**
 * Pools in the store, all of them in one document, so that a guest can never be in two.
 *
 * Rights follow membership, so every change is written together with the mark by which those who judge
 * know that what they remember is out of date. Who may run beside whom: anybody; a change that lost a race is
 * computed again on what is there then.
 */
import { Fault, isFault } from '#base/fault.ts'
import { array, integer, object, optional, record, string } from '#base/schema/schema.ts'
import { checkValue, type Errors } from '#base/schema/check.ts'
import type { Entry, Json, Store } from '#store/store.ts'
import {
  created,
  deleted,
  membership,
  type Pool,
  poolOf,
  type PoolChange,
  type Pools,
  requirePool,
  updated,
} from './pool.ts'

const key = 'pools'
const attempts = 50
const shape = object({
  comment: optional(string()),
  vms: array(integer()),
  storages: array(string()),
})

export interface PoolNeeds {
  readonly store: Store
  /** Key that is written with every change of membership. */
  readonly rightsMark: string
}

export class PoolService {
  readonly #needs: PoolNeeds

  constructor(needs: PoolNeeds) {
    this.#needs = needs
  }

  /** By name. @throws Fault `damaged` */
  async all(): Promise<Pools> {
    return poolsIn(await this.#needs.store.get(key))
  }

  /** @throws Fault `missing`: `pool 'x' does not exist` */
  async get(poolid: string): Promise<Pool> {
    return requirePool(await this.all(), poolid)
  }

  async create(poolid: string, comment?: string): Promise<void> {
    await this.#change((pools) => created(pools, poolid, comment))
  }

  async update(poolid: string, change: PoolChange): Promise<void> {
    await this.#change((pools) => updated(pools, poolid, change))
  }

  async delete(poolid: string): Promise<void> {
    await this.#change((pools) => deleted(pools, poolid))
  }

  /** The pool a guest is in. */
  async poolOf(vmid: number): Promise<string | undefined> {
    return poolOf(await this.all(), vmid)
  }

  /** Makes true that the guest is in this pool and no other. @throws Fault `missing` when the pool is gone */
  async put(vmid: number, poolid: string): Promise<void> {
    await this.#change((pools) =>
      poolOf(pools, vmid) === poolid ? pools : updated(pools, poolid, { vms: [vmid], mayMove: true }),
    )
  }

  /** Makes true that the guest is in no pool; returns the one it was in. */
  async takeOut(vmid: number): Promise<string | undefined> {
    let current: string | undefined
    await this.#change((pools) => {
      current = poolOf(pools, vmid)
      return current === undefined ? pools : updated(pools, current, { vms: [vmid], isRemoval: true })
    })
    return current
  }

  /** Answers which pools a path (`/vms/100`, `/storage/local`) belongs to, as of now. */
  async poolsOf(): Promise<(path: string) => readonly string[]> {
    const members = membership(await this.all())
    return (path) => members.get(path) ?? []
  }

  async #change(change: (pools: Pools) => Pools): Promise<void> {
    const { store, rightsMark } = this.#needs
    for (let attempt = 1; ; attempt += 1) {
      const entry = await store.get(key)
      const before = poolsIn(entry)
      const after = change(before)
      if (after === before) return
      try {
        const writes = [
          { put: key, value: asJson(after) },
          { put: rightsMark, value: 1 },
        ]
        await store.transact([{ key, revision: entry?.revision ?? 0 }], writes)
        return
      } catch (fault) {
        if (!isFault(fault, 'conflict') || attempt === attempts) throw fault
      }
    }
  }
}

function poolsIn(entry: Entry | undefined): Pools {
  const errors: Errors = {}
  const value = entry?.value ?? {}
  checkValue(record(), value, key, errors)
  const pools = Object.entries(value as Record<string, unknown>)
  for (const [poolid, pool] of pools) checkValue(shape, pool, poolid, errors)
  const [wrong] = Object.entries(errors)
  if (wrong) throw new Fault('damaged', `'${key}' in the store is damaged at ${wrong[0]}: ${wrong[1]}`)
  // Each was just found to have the shape.
  return new Map(pools.map(([poolid, pool]) => [poolid, pool as Pool]))
}

function asJson(pools: Pools): Json {
  return JSON.parse(JSON.stringify(Object.fromEntries(pools))) as Json
}
