import assert from 'node:assert/strict'
import { test } from 'node:test'
import { onDemand } from './on-demand.ts'

interface Kitchen {
  readonly water: string
  readonly tea: { readonly of: string }
  readonly pot: { readonly holds: Kitchen['tea'] }
}

test('a part is made when it is first asked for, from others, and once', () => {
  const made: string[] = []
  const kitchen = onDemand<Kitchen, Pick<Kitchen, 'water'>>(
    { water: 'hot' },
    {
      tea: ({ water }) => ({ of: `${made.push('tea')} cup, ${water}` }),
      pot: ({ tea }) => ({ holds: (made.push('pot'), tea) }),
    },
  )
  assert.deepEqual([kitchen.water, made], ['hot', []])
  assert.equal(kitchen.pot.holds, kitchen.tea)
  assert.equal(kitchen.tea.of, '1 cup, hot')
  assert.deepEqual(made, ['tea', 'pot'])
  assert.deepEqual({ ...kitchen }, { water: 'hot', tea: { of: '1 cup, hot' }, pot: { holds: { of: '1 cup, hot' } } })
})
