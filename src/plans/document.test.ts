import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/fault.ts'
import { bytesOf, documentOf, type PlanDocument, readDocument } from './document.ts'
import { applyEdits, edited, linesEdit, markEdits } from './edit.ts'
import { sectionKeys, sectionNames } from './section.ts'

const boxesOf = ({ sections }: PlanDocument) =>
  [...sections.values()].flatMap(({ items }) => items.filter(({ box }) => box))
const evidence = '20260101T000030Z-plan-sample-4711'
const at = '2026-01-01T00:00:41Z'

/** Pieces people write: nested lists, HTML, tables, code, Japanese, tabs, everything that is no plan. */
const piece = fc.oneof(
  fc.constantFrom(
    'A sentence.',
    '文章です。改行も\nあります。',
    '| a | b |\n| --- | --- |\n| 1 | 2 |',
    '<div>\n<b>html</b>\n</div>',
    '<!-- a comment\nof two lines -->',
    '```sh\n- [ ] no box\n## no heading\n```',
    '> quoted\n> - [ ] a box in a quote',
    '* * *',
    'Setext\n------',
    '\tcode by a tab',
    '1. one\n2. two\n   - [x] inner',
    'a trailing space   \nand more',
    '&amp; [link](x) **bold** `code` <a href="x">',
  ),
  fc.string({ unit: 'grapheme', maxLength: 40 }),
)
const box = fc
  .tuple(
    fc.constantFrom('-', '*', '+', '1.'),
    fc.constantFrom(' ', 'x', 'X'),
    fc.constantFrom('Do it', '実行する', 'a `file.md` and **more**', 'x\n  lazy', 'done <!-- note -->'),
    fc.constantFrom('', '\n\n   ```step\n   id: a\n   ```', '\n   - [ ] inner', '\n\t- [x] tab inner'),
  )
  .map(([bullet, tick, words, below]) => `${bullet} [${tick}] ${words}${below}`)
const documents = fc
  .tuple(
    fc.array(fc.tuple(fc.array(fc.oneof(piece, box), { maxLength: 5 }), fc.boolean(), fc.boolean()), {
      minLength: 12,
      maxLength: 12,
    }),
    fc.constantFrom('\n', '\r\n'),
    fc.boolean(),
    fc.boolean(),
  )
  .map(([sections, newline, hasMark, endsOpen]) => {
    const parts = sections.flatMap(([pieces, isJapanese, isNumbered], index) => {
      const key = sectionKeys[index]
      if (!key) return []
      return [`## ${isNumbered ? `${index + 1}. ` : ''}${sectionNames[key][isJapanese ? 'ja' : 'en']}`, ...pieces]
    })
    const text = ['# Title 表題', ...parts].join('\n\n').replaceAll(/\r?\n/g, newline)
    return `${hasMark ? '\uFEFF' : ''}${text}${endsOpen ? '' : newline}`
  })

suite('a plan as a document', () => {
  test('what was not touched is the same to the byte, whatever the document holds', () => {
    fc.assert(
      fc.property(documents, fc.nat(), (whole, choice) => {
        const bytes = Buffer.from(whole)
        const document = readDocument(bytes)
        assert.ok(bytes.equals(bytesOf(document, document.text)))
        const boxes = boxesOf(document)
        const item = boxes[choice % Math.max(1, boxes.length)]
        if (!item?.box) return
        const tick = markEdits(document.text, item, { kind: 'proven', at, evidence }, true)
        const text = edited(document, tick)
        const found = boxesOf(documentOf(text))[choice % boxes.length]
        assert.equal(found?.box?.isTicked, true)
        assert.deepEqual(found.mark, { kind: 'proven', at, evidence })
        assert.equal(found.words, item.words)
        // Taken back, it is the document it was.
        const back = edited(documentOf(text), markEdits(text, found, undefined, item.box.isTicked))
        const sameLetter = applyEdits(back, [
          { start: found.box.at, end: found.box.at + 1, text: document.text[item.box.at] ?? '' },
        ])
        assert.equal(sameLetter, document.text)
      }),
      { numRuns: 80 },
    )
  })

  test('lines are added to the end of a section, and every other line stays', () => {
    fc.assert(
      fc.property(
        documents,
        fc.constantFrom(...sectionKeys),
        fc.string({ unit: 'grapheme', maxLength: 60 }),
        (whole, key, said) => {
          const document = readDocument(Buffer.from(whole))
          const edit = linesEdit(document, key, [`line: ${said}`])
          const text = applyEdits(document.text, [edit])
          assert.equal(text.slice(0, edit.start) + text.slice(edit.start + edit.text.length), document.text)
          const after = documentOf(text)
          const before = document.sections.get(key)
          // A comment or a fence somebody left open swallows what follows: then it is not written.
          if ((after.sections.get(key)?.items.length ?? 0) !== (before?.items.length ?? 0) + 1) {
            assert.ok(before?.blocks.at(-1)?.kind !== 'list')
            return
          }
          for (const other of sectionKeys) {
            if (other === key) continue
            assert.equal(after.sections.get(other)?.items.length, document.sections.get(other)?.items.length, other)
          }
        },
      ),
      { numRuns: 80 },
    )
  })

  test('headings are known in both languages, with any kind of number or none', () => {
    const known = (heading: string) => [...documentOf(`${heading}\n`).sections.keys()][0]
    assert.equal(known('## 6. Concrete steps'), 'steps')
    assert.equal(known('## Concrete Steps'), 'steps')
    assert.equal(known('## 6) 具体的な手順'), 'steps')
    assert.equal(known('## ６．手順'), 'steps')
    assert.equal(known('## 9. Surprises and discoveries'), 'surprises')
    assert.equal(known('## 11. まとめ'), 'outcomes')
    assert.equal(known('## Appendix'), undefined)
  })

  test('bounds hold before anything is parsed', () => {
    assert.throws(() => readDocument(Buffer.from('- [ ] a\n'.repeat(1_000_000))), { kind: 'too-large' })
    assert.throws(() => documentOf(`${'>'.repeat(40)} deep`), { kind: 'too-large' })
    assert.throws(() => documentOf(`${'- '.repeat(40)}deep`), { kind: 'too-large' })
    assert.throws(() => readDocument(Buffer.from([0x23, 0x20, 0xff, 0xfe])), { kind: 'damaged' })
  })

  test('what makes other parsers take minutes is read at once', () => {
    for (const unit of ['x\n\n', '**a ', '![a](', '[', '`a', '<a ', '&a;', '[a]: /b\n', '* a\n', '_a_b', '- [ ] a\n']) {
      const text = `## Steps\n\n${unit.repeat(Math.floor(250_000 / unit.length))}\n`
      const begun = performance.now()
      try {
        documentOf(text)
      } catch (error) {
        assert.ok(isFault(error, 'too-large'))
      }
      assert.ok(performance.now() - begun < 10_000, unit)
    }
  })
})

const others = join(import.meta.dirname, '../../../shared/plans')
// They belong to others, so they are beside the project at most.
if (existsSync(others)) {
  test('documents of others load unchanged, open and claimed boxes told apart', () => {
    const facts = readdirSync(others)
      .filter((name) => name.startsWith('execplan-'))
      .map((name) => {
        const bytes = readFileSync(join(others, name))
        const document = readDocument(bytes)
        assert.ok(bytes.equals(bytesOf(document, document.text)))
        assert.deepEqual([...document.sections.keys()], sectionKeys)
        assert.equal(document.metadata.get('plan id')?.value, `plans/${name}`)
        const boxes = boxesOf(document)
        return [boxes.filter(({ box: one }) => one?.isTicked).length, boxes.length]
      })
    assert.deepEqual(facts, [
      [6, 6],
      [3, 5],
      [4, 4],
    ])
  })
}
