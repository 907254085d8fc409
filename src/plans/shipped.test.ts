/** Shipped plans are good plans, and say the same in both languages. */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { documentOf, readDocument } from './document.ts'
import { lint } from './lint.ts'
import { planOf } from './plan.ts'
import { skeleton } from './skeleton.ts'

const folder = join(import.meta.dirname, '../../plans')
const names = readdirSync(folder).filter((name) => name.endsWith('.md'))
const read = (name: string) => planOf(readDocument(readFileSync(join(folder, name))))

test('a new plan has nothing wrong, in either language', () => {
  for (const language of ['en', 'ja'] as const) {
    const text = skeleton({ id: 'plans/new.md', title: 'New', date: '2026-01-01', language })
    const plan = planOf(documentOf(text))
    assert.deepEqual(lint(plan, { language, status: 'draft', isThere: () => false }), [])
    assert.deepEqual([plan.document.language, plan.steps.length], [language, 1])
  }
})

for (const name of names) {
  test(`${name} has nothing wrong, and no box is ticked`, () => {
    const plan = read(name)
    assert.deepEqual(
      lint(plan, { language: 'en', status: 'draft', isThere: (path) => existsSync(join(folder, '..', path)) }),
      [],
    )
    assert.equal(plan.id, `plans/${name}`)
    assert.ok(plan.steps.every(({ item }) => item.box?.isTicked !== true && item.mark === undefined))
  })
}

for (const name of names.filter((one) => one.endsWith('.en.md'))) {
  test(`${name} and its Japanese counterpart do the same`, () => {
    const [english, japanese] = [read(name), read(name.replace('.en.md', '.ja.md'))]
    assert.equal(japanese.document.language, 'ja')
    assert.deepEqual(
      japanese.steps.map(({ id, digest }) => [id, digest]),
      english.steps.map(({ id, digest }) => [id, digest]),
    )
    assert.deepEqual(japanese.settings, english.settings)
  })
}
