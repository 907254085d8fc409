/** Paths find their endpoint, however clients spell them. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/fault.ts'
import { createRouter, mergeParams, segmentsOf } from './router.ts'

const routes = [
  { method: 'GET', path: '/' },
  { method: 'GET', path: '/nodes' },
  { method: 'GET', path: '/nodes/{node}' },
  { method: 'GET', path: '/nodes/{node}/qemu' },
  { method: 'POST', path: '/nodes/{node}/qemu' },
  { method: 'GET', path: '/nodes/{node}/qemu/{vmid}/snapshot/{snapname}/config' },
  { method: 'GET', path: '/nodes/{node}/storage/{storage}/content/{volume*}' },
  { method: 'GET', path: '/nodes/{node}/storage/{storage}/content' },
  { method: 'DELETE', path: '/nodes/{name}/storage/{storage}/content/{volume*}' },
  { method: 'GET', path: '/nodes/{node}/storage/special/status' },
] as const
const router = createRouter(routes)

function found(method: string, path: string): [string, Record<string, string>] | undefined {
  const match = router.find(method, path)
  return match && [match.endpoint.path, { ...match.params }]
}

test('a path finds its endpoint and its parameters', () => {
  assert.deepEqual(found('GET', '/nodes/lab/qemu'), ['/nodes/{node}/qemu', { node: 'lab' }])
  assert.deepEqual(found('GET', '/'), ['/', {}])
  assert.equal(found('PUT', '/nodes'), undefined)
  assert.equal(found('GET', '/nodes/lab/nothing'), undefined)
  assert.equal(found('GET', '/nodes/lab/qemu/100/snapshot/a'), undefined)
})

test('empty segments and a trailing slash are harmless', () => {
  for (const path of ['//nodes///lab/qemu/', 'nodes/lab/qemu', '/nodes/lab/qemu//']) {
    assert.equal(found('GET', path)?.[0], '/nodes/{node}/qemu')
  }
})

test('the path is decoded before it is split', () => {
  assert.deepEqual(found('GET', '/nodes%2Flab%2fqemu'), ['/nodes/{node}/qemu', { node: 'lab' }])
  const volume = { node: 'lab', storage: 'local', volume: 'local:iso/a b.iso' }
  for (const text of ['local:iso/a%20b.iso', 'local%3Aiso%2Fa%20b.iso']) {
    assert.deepEqual(found('GET', `/nodes/lab/storage/local/content/${text}`)?.[1], volume)
  }
})

test('a literal segment wins, and a dead end behind it does not hide the variable', () => {
  assert.equal(found('GET', '/nodes/lab/storage/special/status')?.[0], '/nodes/{node}/storage/special/status')
  assert.deepEqual(found('GET', '/nodes/lab/storage/special/content')?.[1], { node: 'lab', storage: 'special' })
})

test('each method may name the same segment in its own way', () => {
  assert.deepEqual(found('DELETE', '/nodes/lab/storage/s/content/v')?.[1], { name: 'lab', storage: 's', volume: 'v' })
})

test('what is no UTF-8 or holds control characters is refused', () => {
  for (const path of ['/%', '/%zz', '/%ff', '/a%00b', '/a%0ab']) {
    assert.throws(
      () => router.find('GET', path),
      (error) => isFault(error, 'invalid'),
    )
  }
})

test('the same route twice, or a rest parameter in the middle, is found at start', () => {
  const twice = [routes[1], { method: 'GET', path: '/nodes/' }]
  assert.throws(() => createRouter(twice), /same route/)
  const hidden = [routes[2], { method: 'GET', path: '/nodes/{other}' }]
  assert.throws(() => createRouter(hidden), /same route/)
  assert.throws(() => createRouter([{ method: 'GET', path: '/a/{b*}/c' }]), /last segment/)
})

test('any value survives the way through a path', () => {
  const text = fc.string({ unit: 'grapheme', minLength: 1 }).filter((value) => !/[/\p{Cc}]/u.test(value))
  fc.assert(
    fc.property(text, text, (node, snapname) => {
      const path = `/nodes/${encodeURIComponent(node)}/qemu/100/snapshot/${encodeURIComponent(snapname)}/config`
      assert.deepEqual(found('GET', path)?.[1], { node, vmid: '100', snapname })
    }),
  )
})

test('whatever the path, finding answers or refuses', () => {
  fc.assert(
    fc.property(fc.string(), (path) => {
      try {
        router.find('GET', path)
        assert.ok(segmentsOf(path).every((segment) => segment !== ''))
      } catch (error) {
        assert.ok(isFault(error, 'invalid'))
      }
    }),
  )
})

describe('parameters from three places', () => {
  test('the query wins over the body', () => {
    assert.deepEqual(mergeParams({}, { a: '1' }, { a: '2', b: '3' }), { a: '1', b: '3' })
  })

  test('a path parameter may be repeated, but not contradicted', () => {
    assert.deepEqual(mergeParams({ vmid: '100' }, { vmid: '100' }, { vmid: 100 }), { vmid: '100' })
    assert.deepEqual(mergeParams({ vmid: '100' }, {}, { vmid: null }), { vmid: '100' })
    for (const other of ['101', 101, ['100', '101'], '', '0100']) {
      assert.throws(
        () => mergeParams({ vmid: '100' }, {}, { vmid: other }),
        (error) => isFault(error, 'invalid') && error.fields?.vmid !== undefined,
      )
    }
  })
})
