import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Edge, kindNames, type Part, partOf, partStates } from './graph.ts'
import { graphAt } from './level.ts'

const aPart = fc
  .record({
    kind: fc.constantFrom(...kindNames),
    name: fc.stringMatching(/^[a-z0-9./*-]{1,8}$/),
    state: fc.constantFrom(...partStates),
  })
  .map(({ kind, name, state }) => partOf(kind, name, { state }))
const aSite = fc.uniqueArray(aPart, { selector: ({ id }) => id, maxLength: 400 }).chain((parts) => {
  const end = fc.constantFrom('gone', ...parts.map(({ id }) => id))
  const edges = fc.array(
    fc.record({ from: end, to: end, type: fc.constantFrom('runs on' as const, 'stores on' as const) }),
    { maxLength: 400 },
  )
  return fc.record({ parts: fc.constant(parts), edges })
})

test('the top level has at most 25 parts whatever the size of the site, and no edge leads to nowhere', () => {
  fc.assert(
    fc.property(aSite, fc.constantFrom(1 as const, 2 as const, 3 as const), (site, level) => {
      const { parts, edges } = graphAt(level, site)
      if (level === 1) assert.ok(parts.length <= 25)
      const ids = new Set(parts.map(({ id }) => id))
      assert.equal(ids.size, parts.length)
      for (const { from, to } of edges) assert.ok(ids.has(from) && ids.has(to) && from !== to)
    }),
  )
})

test('nothing is lost: who is not drawn is counted, and of several the worst state is shown', () => {
  fc.assert(
    fc.property(aSite, (site) => {
      const { parts } = graphAt(3, site)
      assert.equal(
        parts.reduce((sum, { count = 1 }) => sum + count, 0),
        site.parts.length,
      )
      for (const part of graphAt(1, site).parts) {
        const behind = site.parts.filter(({ kind }) => kind === part.kind).map(({ state }) => partStates.indexOf(state))
        assert.equal(partStates.indexOf(part.state), Math.min(...behind))
      }
    }),
  )
})

test('the same parts in another order are the same graph', () => {
  fc.assert(
    fc.property(aSite, fc.constantFrom(1 as const, 2 as const, 3 as const), (site, level) => {
      const turned = { parts: site.parts.toReversed(), edges: site.edges.toReversed() }
      assert.deepEqual(graphAt(level, turned), graphAt(level, site))
    }),
  )
})

test('what a guest is made of stands for the guest until it is drawn itself', () => {
  const parts: Part[] = [
    partOf('vm', '100', { state: 'ok' }),
    partOf('volume', '100/scsi0', { state: 'ok' }),
    partOf('storage', 'local', { state: 'ok' }),
  ]
  const edges: Edge[] = [
    { from: 'vm/100', to: 'volume/100/scsi0', type: 'depends on' },
    { from: 'volume/100/scsi0', to: 'storage/local', type: 'stores on' },
  ]
  assert.deepEqual(graphAt(1, { parts, edges }).edges, [{ from: 'vm', to: 'storage', type: 'stores on' }])
  assert.deepEqual(graphAt(2, { parts, edges }).edges, [{ from: 'vm/100', to: 'storage/local', type: 'stores on' }])
  assert.equal(graphAt(3, { parts, edges }).edges.length, 2)
})
