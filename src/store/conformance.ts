/** What every store promises, as tests: each driver passes the same suite. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Clock, systemClock, waitFor } from '#base/clock.ts'
import { type Fault, isFault } from '#base/fault.ts'
import { limits } from '#base/limits.ts'
import type { Change, Guard, Json, Store, Write } from './store.ts'

/** One place that keeps data; each `open` is another handle on it. */
export interface StorePlace extends AsyncDisposable {
  readonly open: (clock: Clock) => Promise<Store>
}

const fails = (kind: Fault['kind'], text: RegExp) => (error: unknown) =>
  isFault(error, kind) && text.test(error.message)

/** A clock whose wall time stands still until it is moved; waiting takes real time. */
function movableClock(): { clock: Clock; forward: (ms: number) => void } {
  let now = 1_800_000_000_000
  return { clock: { ...systemClock, now: () => now }, forward: (ms) => void (now += ms) }
}

/** Declares the suite for one driver. */
export function storeConformance(driver: string, makePlace: () => Promise<StorePlace>): void {
  const check = (title: string, body: (store: Store, more: More) => Promise<void>) =>
    test(title, async () => {
      await using place = await makePlace()
      const { clock, forward } = movableClock()
      await using store = await place.open(clock)
      await body(store, { forward, open: () => place.open(clock) })
    })
  describe(`${driver} store`, () => {
    readingAndWriting(check)
    bounds(check)
    marking(check)
    watching(check)
    leasing(check)
  })
}

interface More {
  readonly forward: (ms: number) => void
  readonly open: () => Promise<Store>
}
type Check = (title: string, body: (store: Store, more: More) => Promise<void>) => void

const put = (store: Store, key: string, value: Json = null) => store.transact([], [{ put: key, value }])

async function keysOf(store: Store, prefix: string, options?: { after?: string; limit?: number }): Promise<string[]> {
  return (await store.list(prefix, options)).map(({ key }) => key)
}

function marking(check: Check): void {
  check('every change touches the mark, for every handle, before it is done', async (store, { open }) => {
    await using other = await open()
    const seen = new Set([store.mark.read()])
    for (const [at, writer] of [store, other, other, store].entries()) {
      const [before, late] = [store.mark.read(), other.mark.read()]
      assert.equal(before, late)
      await put(writer, `keys/${at}`, at)
      assert.notEqual(store.mark.read(), before)
      assert.equal(other.mark.read(), store.mark.read())
      seen.add(store.mark.read())
    }
    assert.equal(seen.size, 5, 'no mark comes twice')
  })

  check('what a lease held touches the mark when it goes', async (store, { forward }) => {
    const { id } = await store.lease(1000)
    await store.transact([], [{ put: 'locks/a', value: 1, lease: id }])
    const before = store.mark.read()
    assert.equal(store.mark.read(), before, 'reading is no change')
    forward(1001)
    assert.equal(await store.get('locks/a'), undefined)
    assert.notEqual(store.mark.read(), before)
  })

  check('whoever else changes something touches it by hand', async (store, { open }) => {
    await using other = await open()
    const before = other.mark.read()
    store.mark.touch()
    assert.notEqual(other.mark.read(), before)
  })
}

function readingAndWriting(check: Check): void {
  check('what was put is read back, with the revision of its change', async (store) => {
    const value = { text: 'süß 東京', list: [1, 2.5, null, true], deep: { a: { b: [] } } }
    const revision = await put(store, 'guests/qemu/100', value)
    assert.deepEqual(await store.get('guests/qemu/100'), { key: 'guests/qemu/100', value, revision })
    assert.equal(await store.get('guests/qemu/101'), undefined)
    assert.equal(await store.revision(), revision)
  })

  check('a value belongs to its reader: changing it changes nothing in the store', async (store) => {
    const mine = { list: [1] }
    await put(store, 'a', mine)
    mine.list.push(2)
    const first = await store.get<{ list: number[] }>('a')
    first?.value.list.push(3)
    assert.deepEqual((await store.get('a'))?.value, { list: [1] })
  })

  check('a list has the keys below a prefix in byte order, after a key, up to a limit', async (store) => {
    const keys = ['a/1', 'a/10', 'a/2', 'a/\u{fffd}', 'a/\u{1f600}', 'a0', 'a', 'b/1']
    await store.transact(
      [],
      keys.map((key) => ({ put: key, value: key })),
    )
    const below = ['a/1', 'a/10', 'a/2', 'a/\u{fffd}', 'a/\u{1f600}']
    assert.deepEqual(await keysOf(store, 'a/'), below)
    assert.deepEqual(await keysOf(store, 'a/', { limit: 2 }), below.slice(0, 2))
    assert.deepEqual(await keysOf(store, 'a/', { after: 'a/10', limit: 2 }), below.slice(2, 4))
    assert.deepEqual(await keysOf(store, 'a/', { limit: 0 }), [])
    assert.deepEqual(await keysOf(store, 'c'), [])
    assert.equal((await keysOf(store, '')).length, keys.length)
  })

  check('every change raises the one revision of the store', async (store) => {
    const first = await put(store, 'a')
    const second = await put(store, 'b')
    const third = await store.transact([], [{ delete: 'a' }])
    assert.ok(first < second && second < third)
    assert.equal((await store.get('b'))?.revision, second)
  })

  check('deleting what is not there changes nothing', async (store) => {
    const before = await put(store, 'a')
    assert.equal(await store.transact([], [{ delete: 'b' }]), before)
    assert.equal(await store.transact([], []), before)
  })

  check('a deleted key is gone and can be created again', async (store) => {
    await put(store, 'a', 1)
    await store.transact([], [{ delete: 'a' }])
    assert.equal(await store.get('a'), undefined)
    await store.transact([{ key: 'a', revision: 0 }], [{ put: 'a', value: 2 }])
    assert.equal((await store.get('a'))?.value, 2)
  })

  check('a guard that does not hold names the key, and nothing is written', async (store) => {
    const revision = await put(store, 'a', 1)
    await put(store, 'b', 1)
    const attempt = (guards: Guard[]) => store.transact(guards, [{ put: 'b', value: 2 }, { delete: 'a' }])
    const good = { key: 'a', revision }
    await assert.rejects(attempt([good, { key: 'b', revision: 0 }]), fails('conflict', /'b' already exists/))
    await assert.rejects(attempt([good, { key: 'c', revision: 7 }]), fails('conflict', /'c' no longer exists/))
    await assert.rejects(attempt([{ key: 'a', revision: revision + 9 }]), fails('conflict', /'a' was changed/))
    assert.deepEqual(
      (await store.list('')).map(({ value }) => value),
      [1, 1],
    )
    await attempt([good])
    assert.deepEqual(await keysOf(store, ''), ['b'])
  })

  check('of many that create the same key at once, from two handles, one wins', async (store, { open }) => {
    await using other = await open()
    const attempts = Array.from({ length: 20 }, (_, index) =>
      (index % 2 ? store : other).transact([{ key: 'lock', revision: 0 }], [{ put: 'lock', value: index }]),
    )
    const outcomes = await Promise.allSettled(attempts)
    assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1)
    for (const outcome of outcomes) if (outcome.status === 'rejected') assert.ok(isFault(outcome.reason, 'conflict'))
  })

  check('counting up from two handles loses no step', async (store, { open }) => {
    await using other = await open()
    await put(store, 'n', 0)
    const step = async (handle: Store): Promise<void> => {
      const now = await handle.get<number>('n')
      assert.ok(now)
      try {
        await handle.transact([now], [{ put: 'n', value: now.value + 1 }])
      } catch (error) {
        if (isFault(error, 'conflict')) return step(handle)
        throw error
      }
    }
    await Promise.all(Array.from({ length: 30 }, (_, index) => step(index % 2 ? store : other)))
    assert.equal((await other.get('n'))?.value, 30)
  })
}

function bounds(check: Check): void {
  check('a key may have 1 to 512 bytes of printable text', async (store) => {
    const longest = 'ß'.repeat(limits.store.keyBytes / 2)
    await put(store, longest)
    assert.deepEqual(await keysOf(store, ''), [longest])
    for (const key of ['', `${longest}x`, 'a\0b', 'a\nb', 'a\ud800']) {
      await assert.rejects(put(store, key), fails('invalid', /verification/))
      await assert.rejects(store.get(key), fails('invalid', /verification/))
    }
  })

  check('a value may have 1 MiB of JSON', async (store) => {
    const largest = 'x'.repeat(limits.store.valueBytes - 2)
    await put(store, 'a', largest)
    assert.equal((await store.get('a'))?.value, largest)
    await assert.rejects(put(store, 'a', `${largest}x`), fails('too-large', /'a'/))
    assert.equal((await store.get('a'))?.value, largest)
  })

  check('one transaction writes a key once', async (store) => {
    const writes: Write[] = [{ put: 'a', value: 1 }, { delete: 'a' }]
    await assert.rejects(store.transact([], writes), fails('invalid', /verification/))
  })

  check('a closed store refuses', async (store) => {
    await store[Symbol.asyncDispose]()
    await assert.rejects(store.get('a'), fails('unavailable', /closed/))
    await assert.rejects(put(store, 'a'), fails('unavailable', /closed/))
  })
}

/** Collects what a watch sees until it has `count` changes. */
async function collect(store: Store, prefix: string, since: number, count: number): Promise<Change[]> {
  const seen: Change[] = []
  for await (const change of store.watch(prefix, since, AbortSignal.timeout(10_000))) {
    if (seen.push(change) === count) break
  }
  return seen
}

function watching(check: Check): void {
  check('a watch sees every change below its prefix after its revision, in order', async (store) => {
    const since = await put(store, 'a/0', 0)
    const first = await store.transact(
      [],
      [
        { put: 'a/1', value: 1 },
        { put: 'b/1', value: 1 },
        { put: 'a/2', value: 2 },
      ],
    )
    const second = await store.transact([], [{ delete: 'a/1' }])
    assert.deepEqual(await collect(store, 'a/', since, 3), [
      { key: 'a/1', revision: first, value: 1 },
      { key: 'a/2', revision: first, value: 2 },
      { key: 'a/1', revision: second },
    ])
  })

  check('a watch misses nothing that is written while it runs', async (store) => {
    const since = await store.revision()
    const seen = collect(store, 'n/', since, 500)
    for (let n = 0; n < 500; n += 10) {
      await Promise.all(Array.from({ length: 10 }, (_, index) => put(store, `n/${n + index}`, n + index)))
    }
    assert.deepEqual(
      (await seen).map(({ value }) => value).toSorted((a, b) => Number(a) - Number(b)),
      Array.from({ length: 500 }, (_, n) => n),
    )
  })

  check('a watch hears of changes made through another handle', async (store, { open }) => {
    await using other = await open()
    const seen = collect(other, '', await other.revision(), 3)
    for (const n of [1, 2, 3]) {
      await put(store, 'n', n)
      await new Promise(setImmediate)
    }
    assert.deepEqual(
      (await seen).map(({ value }) => value),
      [1, 2, 3],
    )
  })

  check('a watch ends with its signal, and with its store', async (store) => {
    const stop = new AbortController()
    const [ended, closed] = [stop.signal, new AbortController().signal].map(async (signal) => {
      for await (const change of store.watch('', 0, signal)) assert.fail(`nothing was written, yet ${change.key}`)
      return true
    })
    stop.abort()
    assert.equal(await ended, true)
    await store[Symbol.asyncDispose]()
    assert.equal(await closed, true)
  })

  check('a watch that fell too far behind is told to list again', async (store) => {
    const since = await put(store, 'a/0')
    const writes = Array.from({ length: limits.store.watchQueue }, (_, n) => ({ put: `a/${n}`, value: n }))
    await store.transact([], writes)
    assert.equal((await collect(store, '', since, writes.length)).length, writes.length)
    const later = await put(store, 'b')
    await assert.rejects(collect(store, '', since - 1, 1), fails('exhausted', /list again/))
    assert.equal((await collect(store, '', later - 1, 1))[0]?.key, 'b')
  })
}

function leasing(check: Check): void {
  check('what was written under a lease vanishes when its time is over, and watchers hear it', async (store, more) => {
    await using other = await more.open()
    const lease = await store.lease(1_000)
    await store.transact(
      [],
      [
        { put: 'a', value: 1, lease: lease.id },
        { put: 'b', value: 1 },
      ],
    )
    const heard = collect(other, '', await other.revision(), 1)
    more.forward(999)
    assert.deepEqual(await keysOf(other, ''), ['a', 'b'])
    more.forward(1)
    assert.deepEqual(
      (await heard).map(({ key, value }) => ({ key, value })),
      [{ key: 'a', value: undefined }],
    )
    assert.deepEqual(await keysOf(store, ''), ['b'])
  })

  check('renewing postpones the end; after the end it is too late', async (store, { forward }) => {
    const lease = await store.lease(1_000)
    await store.transact([], [{ put: 'a', value: 1, lease: lease.id }])
    for (let round = 0; round < 3; round += 1) {
      forward(900)
      await lease.renew()
    }
    assert.deepEqual(await keysOf(store, ''), ['a'])
    forward(1_000)
    await assert.rejects(lease.renew(), fails('missing', /has ended/))
    assert.deepEqual(await keysOf(store, ''), [])
  })

  check('giving a lease back removes what was written under it', async (store) => {
    {
      await using lease = await store.lease(60_000)
      await store.transact([], [{ put: 'a', value: 1, lease: lease.id }])
      assert.deepEqual(await keysOf(store, ''), ['a'])
    }
    assert.deepEqual(await keysOf(store, ''), [])
  })

  check('a key written again without the lease stays', async (store, { forward }) => {
    const lease = await store.lease(1_000)
    await store.transact([], [{ put: 'a', value: 1, lease: lease.id }])
    await put(store, 'a', 2)
    forward(2_000)
    assert.equal((await store.get('a'))?.value, 2)
  })

  check('writing under a lease that has ended is refused', async (store, { forward }) => {
    const lease = await store.lease(1_000)
    forward(1_000)
    const late = store.transact([], [{ put: 'a', value: 1, lease: lease.id }])
    await assert.rejects(late, fails('missing', /lease/))
    await assert.rejects(store.lease(0), fails('invalid', /verification/))
  })

  check('a lease ends while nobody but a watcher looks', async (store, { forward }) => {
    const lease = await store.lease(1_000)
    const revision = await store.transact([], [{ put: 'a', value: 1, lease: lease.id }])
    const heard = collect(store, 'a', revision, 1)
    forward(1_000)
    const change = await waitFor(async () => (await heard)[0], { what: 'the end of the lease', timeoutMs: 5_000 })
    assert.equal(change.key, 'a')
  })
}
