import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type BalloonedGuest, balloonBoundsOf, type NodeMemory, shareOut } from './ballooning.ts'

const guest = (vmid: number, nowMiB: number, more: Partial<BalloonedGuest> = {}): BalloonedGuest => ({
  vmid,
  nowMiB,
  leastMiB: 512,
  mostMiB: 4096,
  shares: 1000,
  ...more,
})
const node = (usedMiB: number): NodeMemory => ({ totalMiB: 10_000, usedMiB, targetPercent: 80 })
const next = (usedMiB: number, guests: readonly BalloonedGuest[]) => Object.fromEntries(shareOut(node(usedMiB), guests))

test('a node with room gives back, a full one takes, each guest a step at most', () => {
  assert.deepEqual(next(5000, [guest(1, 4096), guest(2, 4096)]), {})
  assert.deepEqual(next(9000, [guest(1, 4096), guest(2, 4096)]), { 1: 3996, 2: 3996 })
  assert.deepEqual(next(4800, [guest(1, 1000), guest(2, 4090)]), { 1: 1100, 2: 4096 })
  assert.deepEqual(next(9000, [guest(1, 512), guest(2, 520)]), { 2: 512 })
})

test('no more moves than the node lacks or has', () => {
  assert.deepEqual(next(8100, [guest(1, 4096), guest(2, 4096)]), { 1: 4046, 2: 4046 })
  assert.deepEqual(next(7940, [guest(1, 1000), guest(2, 1000)]), { 1: 1030, 2: 1030 })
  assert.deepEqual(next(8005, [guest(1, 4096)]), {})
})

test('who has more shares keeps more, and who has less than that gives nothing', () => {
  const rich = { shares: 3000 }
  assert.deepEqual(next(8200, [guest(1, 2000, rich), guest(2, 2000)]), { 2: 1900 })
  let guests = [guest(1, 2048, rich), guest(2, 2048)]
  // Until the node uses what it may: 1000 less than at first.
  for (let used = 9000; used > 8000;) {
    const moved = shareOut(node(used), guests)
    if (moved.size === 0) break
    guests = guests.map((one) => {
      const nowMiB = moved.get(one.vmid) ?? one.nowMiB
      used -= one.nowMiB - nowMiB
      return { ...one, nowMiB }
    })
  }
  const [first = 0, second = 0] = guests.map(({ nowMiB }) => nowMiB)
  assert.deepEqual([first, second], [2048, 1048])
})

test('whose balloon is to move: it has a least that is not all, and shares', () => {
  assert.deepEqual(balloonBoundsOf({ memory: '2048', balloon: '512' }), { leastMiB: 512, mostMiB: 2048, shares: 1000 })
  assert.equal(balloonBoundsOf({ memory: '2048', balloon: '512', shares: '5' })?.shares, 5)
  for (const options of [{}, { balloon: '0' }, { balloon: '512' }, { balloon: '256', shares: '0' }]) {
    assert.equal(balloonBoundsOf({ memory: '512', ...options }), undefined)
  }
})

test('whatever there is, each guest stays within its bounds and all move one way', () => {
  const mebibytes = fc.integer({ min: 16, max: 20_000 })
  const guests = fc.array(fc.tuple(mebibytes, mebibytes, mebibytes, fc.integer({ min: 1, max: 50_000 })), {
    maxLength: 12,
  })
  fc.assert(
    fc.property(guests, fc.integer({ min: 0, max: 12_000 }), (many, used) => {
      const all = many.map(([a, b, c, shares], vmid): BalloonedGuest => {
        const [leastMiB = 0, nowMiB = 0, mostMiB = 0] = [a, b, c].toSorted((one, other) => one - other)
        return { vmid, leastMiB, nowMiB, mostMiB, shares }
      })
      const room = 8000 - used
      let moved = 0
      for (const [vmid, size] of shareOut(node(used), all)) {
        const { leastMiB, mostMiB, nowMiB } = all[vmid] ?? guest(0, 0)
        assert.ok(size >= leastMiB && size <= mostMiB && Math.abs(size - nowMiB) <= 100, `${size}`)
        assert.equal(Math.sign(size - nowMiB), Math.sign(room))
        moved += size - nowMiB
      }
      assert.ok(Math.abs(moved) <= Math.abs(room))
    }),
  )
})
