import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from './clock.ts'
import { followed, isFollowed, passing, serverTiming } from './trace.ts'

const wait = (ms: number) => systemClock.sleep(ms)

test('what is followed says which parts it passed, how often, and how long; times at once count once', async () => {
  const { result, way } = await followed(async () => {
    await passing('store', 'read', () => wait(5))
    await Promise.all([passing('qmp', '100', () => wait(30)), passing('qmp', '100', () => wait(30))])
    await wait(20)
    return isFollowed()
  })
  assert.equal(result, true)
  assert.deepEqual(
    way.stops.map(({ passed, name, times }) => [passed, name, times]),
    [
      ['store', 'read', 1],
      ['qmp', '100', 2],
    ],
  )
  const [store, qmp] = way.stops.map(({ ms }) => ms)
  assert.ok(store !== undefined && qmp !== undefined)
  const sum = store + qmp + way.ownMs
  assert.ok(Math.abs(sum - way.ms) < 0.01, `${sum} of ${way.ms}`)
})

test('what nobody follows is not measured, and neither is what two do at once told to the other', async () => {
  assert.equal(await passing('store', 'read', () => isFollowed()), false)
  const [first, second] = await Promise.all([
    followed(() => passing('qmp', '1', () => wait(1))),
    followed(() => passing('qmp', '2', () => wait(1))),
  ])
  assert.deepEqual(
    [first, second].map(({ way }) => way.stops.map(({ name }) => name)),
    [['1'], ['2']],
  )
})

test('what fails was passed, too, and fails as it did', async () => {
  const failing = passing('program', 'ip', async () => {
    throw new Error('no such bridge')
  })
  await assert.rejects(failing, /no such bridge/)
  const { way } = await followed(async () => {
    await passing('program', 'ip', () => Promise.reject(new Error('x'))).catch(() => {})
  })
  assert.equal(way.stops[0]?.name, 'ip')
})

test('a header holds it, whatever parts are called', () => {
  const stop = { passed: 'program', name: 'a";\r\nSet-Cookie: x', ms: 1.5, times: 1 } as const
  assert.equal(
    serverTiming({ ms: 3, ownMs: 1.5, stops: [stop] }),
    'daemon;dur=3.000, daemon-own;dur=1.500, program;dur=1.500;desc="a____Set-Cookie: x x1"',
  )
})
