import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'

/** A small project in the place of ours, with its own copy of the module that tells where modules lie. */
function project(t: TestContext, files: Readonly<Record<string, string>>): string {
  const home = mkdtempSync(join(tmpdir(), 'hako-modules-'))
  t.after(() => rmSync(home, { recursive: true, force: true }))
  const checkout = join(home, 'check out #1')
  for (const folder of ['src/base', 'src/store', 'node_modules/parcel']) {
    mkdirSync(join(checkout, folder), { recursive: true })
  }
  const known = readFileSync(join(import.meta.dirname, 'known-modules.ts'), 'utf8')
  const all = {
    'package.json': '{ "type": "module", "imports": { "#*": "./src/*" } }',
    'src/base/known-modules.ts': known,
    'node_modules/parcel/package.json': '{ "main": "./first" }',
    'node_modules/parcel/first.js': "module.exports = require('./second')",
    'node_modules/parcel/second.js': "module.exports = 'parcel'",
    ...files,
  }
  for (const [name, text] of Object.entries(all)) writeFileSync(join(checkout, name), text)
  symlinkSync(checkout, join(home, 'link'))
  return home
}

function run(checkout: string, isTold: boolean): string {
  const told = isTold ? [`--require=${join(checkout, 'src/base/known-modules.ts')}`] : []
  return execFileSync(process.execPath, [...told, join(checkout, 'src/entry.ts')], { encoding: 'utf8', stdio: 'pipe' })
}

test('every kind of name leads where it leads without being told, each module is there once, also through a link', (t) => {
  const home = project(t, {
    'src/entry.ts': `import { createRequire } from 'node:module'
import { sep } from 'path'
import parcel from 'parcel'
import { one } from './store/one.ts'
import { one as same } from '#store/one.ts'
const required = createRequire(import.meta.url)('#store/one.ts')
const later = await import('./store/one.ts')
console.log(sep, parcel, one === same, one === required.one, one === later.one, import.meta.url, one.url)`,
    'src/store/one.ts': `import { two } from '../base/two.ts'
export const one: { url: string } = { url: import.meta.url + two }`,
    'src/base/two.ts': 'export const two: number = 2',
  })
  for (const way of ['check out #1', 'link']) {
    const checkout = join(home, way)
    const plain = run(checkout, false)
    assert.match(plain, /^\/ parcel true true true file:.*entry\.ts file:.*one\.ts2\n$/)
    assert.equal(run(checkout, true), plain)
  }
})

test('a module that is not there is named', (t) => {
  const home = project(t, { 'src/entry.ts': "import '#store/gone.ts'" })
  assert.throws(() => run(join(home, 'link'), true), /src\/store\/gone\.ts/)
})
