import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { machine } from '../exec.ts'
import { type IdMap, isAllowed, outsideId, requireAllowed, underIdMap } from './id-map.ts'

const map: IdMap = [
  { kind: 'uid', inside: 0, outside: 100_000, count: 1_000 },
  { kind: 'uid', inside: 1_000, outside: 5, count: 1 },
  { kind: 'gid', inside: 0, outside: 100_000, count: 65_536 },
]

test('an id inside is one outside, or none', () => {
  assert.deepEqual(
    [0, 999, 1_000, 1_001].map((id) => outsideId(map, 'uid', id)),
    [100_000, 100_999, 5, undefined],
  )
  assert.equal(outsideId(map, 'gid', 65_535), 165_535)
})

test('root hands out only what it was given', async () => {
  const range = { kind: 'uid', inside: 0, outside: 100_000, count: 65_536 } as const
  assert.ok(isAllowed(range, 'ann:1:2\nroot:100000:65536\n'))
  assert.ok(isAllowed(range, '0:99999:65537'))
  assert.ok(!isAllowed(range, 'root:100000:65535\nann:100000:65536\n'))
  assert.ok(!isAllowed(range, ''))
  const beyond = [{ ...range, outside: 4_000_000_000 }]
  await assert.rejects(
    requireAllowed(beyond),
    (fault) => isFault(fault, 'invalid') && fault.message.includes('4000000000 to 4000065535'),
  )
})

test('a program under a map is root inside, and nobody there who is outside', async () => {
  const whole: IdMap = (['uid', 'gid'] as const).map((kind) => ({ kind, inside: 0, outside: 100_000, count: 65_536 }))
  await requireAllowed(whole)
  const said = async (...argv: [string, ...string[]]) => (await machine().run(underIdMap(whole, argv))).stdout
  assert.equal(await said('id', '--user'), '0\n')
  assert.equal(await said('stat', '--format=%u', '/etc/passwd'), '65534\n')
})
