import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseXml, XmlElement } from '@rgrove/parse-xml'
import fc from 'fast-check'
import { type Architecture, kindNames, partOf, partStates } from '#views/architecture/graph.ts'
import { unanswered } from './command.ts'
import { anchorOf, drawArchitecture } from './svg.ts'

const plain = { language: 'en', theme: 'auto', translate: (text: string) => text } as const
const architecture: Architecture = {
  node: 'alpha',
  level: 2,
  parts: [
    partOf('disk', 'vda', { state: 'ok', detail: '256 GiB' }),
    partOf('kernel', undefined, { state: 'ok', version: '6.12' }),
    partOf('daemon', undefined, { state: 'ok' }),
    partOf('storage', 'local', { state: 'warning' }),
    partOf('vm', '100', { state: 'failed', detail: 'web & <db> "1"' }),
  ],
  edges: [
    { from: 'vm/100', to: 'storage/local', type: 'stores on' },
    { from: 'storage/local', to: 'disk/vda', type: 'stores on' },
    { from: 'daemon', to: 'kernel', type: 'runs on' },
  ],
}

function elementsIn(svg: string): XmlElement[] {
  const below = (element: XmlElement): XmlElement[] => [
    element,
    ...element.children.flatMap((one) => (one instanceof XmlElement ? below(one) : [])),
  ]
  const { root } = parseXml(svg)
  assert.ok(root)
  return below(root)
}

const partsIn = (svg: string) => elementsIn(svg).filter(({ attributes }) => attributes['data-kind'] !== undefined)

test('every part has its anchor and its state, and lies in the band of its lane, guests on top', async () => {
  const svg = await drawArchitecture(architecture, plain)
  assert.deepEqual(
    new Map(partsIn(svg).map(({ attributes }) => [attributes.id, attributes['data-state']])),
    new Map(architecture.parts.map(({ id, state }) => [anchorOf(id), state])),
  )
  const numbers = ({ attributes }: XmlElement) => ({ y: Number(attributes.y), height: Number(attributes.height) })
  const bands = elementsIn(svg).filter(({ attributes }) => attributes.class === 'lane')
  assert.deepEqual(
    bands.map(({ attributes }) => attributes.id),
    ['lane-guests', 'lane-storage', 'lane-host', 'lane-hardware'],
  )
  let end = 0
  for (const band of bands) {
    const [rect] = band.children.filter((child) => child instanceof XmlElement)
    assert.ok(rect)
    const { y, height } = numbers(rect)
    assert.ok(y >= end, 'no two bands overlap')
    end = y + height
  }
})

test('the same state is the same picture to the byte, in either language and every theme', async () => {
  for (const language of ['en', 'ja'] as const) {
    for (const theme of ['auto', 'light', 'dark'] as const) {
      const drawing = { ...plain, language, theme }
      assert.equal(await drawArchitecture(architecture, drawing), await drawArchitecture(architecture, drawing))
    }
  }
})

test('a picture is sound XML with every part in it, whatever parts are called', async () => {
  const aPart = fc
    .record({
      kind: fc.constantFrom(...kindNames),
      name: fc.string({ unit: 'binary', minLength: 1, maxLength: 60 }),
      state: fc.constantFrom(...partStates),
      detail: fc.string({ unit: 'binary', maxLength: 80 }),
    })
    .map(({ kind, name, state, detail }) => partOf(kind, name, { state, detail }))
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(aPart, { selector: ({ id }) => id, minLength: 1, maxLength: 12 }),
      async (parts) => {
        const [first, last] = [parts[0], parts.at(-1)]
        const edges =
          first && last && first !== last ? [{ from: first.id, to: last.id, type: 'depends on' as const }] : []
        const svg = await drawArchitecture({ node: 'alpha', level: 3, parts, edges }, plain)
        assert.equal(partsIn(svg).length, parts.length)
      },
    ),
    { numRuns: 40 },
  )
})

test('a way is numbered in its order, and what is not on it fades', async () => {
  const way = {
    title: 'a backup',
    stops: [{ part: 'vm/100', says: 'held still 3 ms' }, { part: 'storage/local' }, { part: 'not drawn' }],
  }
  const svg = await drawArchitecture(architecture, { ...plain, way })
  const numbers = elementsIn(svg)
    .filter(({ attributes }) => attributes.class === 'way-number')
    .map(({ text }) => text)
  assert.deepEqual(numbers, ['1', '2'])
  assert.ok(svg.includes('held still 3 ms'))
  const faded = partsIn(svg)
    .filter(({ attributes }) => attributes.class?.includes('faded'))
    .map(({ attributes }) => attributes.id)
  assert.deepEqual(faded, ['disk--vda', 'kernel', 'daemon'])
})

test('when nobody answers, only that is known', () => {
  const states = unanswered(architecture).parts.map(({ kind, state }) => [kind, state])
  assert.deepEqual(states, [
    ['disk', 'unknown'],
    ['kernel', 'unknown'],
    ['daemon', 'failed'],
    ['storage', 'unknown'],
    ['vm', 'unknown'],
  ])
})
