/** Sources of packages are changed in their own lines and nowhere else. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseLines, parseStanzas, withEnabled } from './package-sources.ts'

const list = `# Our mirror.
deb http://a.example/debian stable main   # near
  #deb-src http://a.example/debian stable main

# deb [arch=amd64] http://b.example/debian stable contrib
deb cdrom:[Debian 12 _Bookworm_]/ bookworm main
# a remark about deb files
`
const sources = `# Above all.

# Debian.
Types: deb
# http://snapshot.example
URIs: http://a.example/debian
Suites: stable
 stable-updates
Components: main

## Old.
Types: deb
URIs: http://b.example/debian
Suites: stable
Enabled: no
Components: main
`

test('one line is switched, with its remark, and all others stay', () => {
  assert.deepEqual(
    parseLines(list).map(({ types, uris, isEnabled }) => [types[0], uris[0], isEnabled]),
    [
      ['deb', 'http://a.example/debian', true],
      ['deb-src', 'http://a.example/debian', false],
      ['deb', 'http://b.example/debian', false],
      ['deb', 'cdrom:[Debian 12 _Bookworm_]/', true],
    ],
  )
  const switched = (index: number, isEnabled: boolean) => withEnabled({ type: 'list', text: list }, index, isEnabled)
  assert.equal(switched(0, false), list.replace('deb http://a', '# deb http://a'))
  assert.equal(switched(1, true), list.replace('  #deb-src', '  deb-src'))
  assert.equal(switched(2, true), list.replace('# deb [arch', 'deb [arch'))
  for (const [index, isEnabled] of [true, false, false, true].entries()) assert.equal(switched(index, isEnabled), list)
  assert.equal(withEnabled({ type: 'list', text: switched(2, true) }, 2, false), list)
})

test('a stanza is switched by one line, and all others stay', () => {
  assert.deepEqual(
    parseStanzas(sources).map(({ suites, isEnabled, comment }) => [suites, isEnabled, comment]),
    [
      [['stable', 'stable-updates'], true, 'Debian.\nhttp://snapshot.example'],
      [['stable'], false, '# Old.'],
    ],
  )
  const switched = (index: number, isEnabled: boolean) =>
    withEnabled({ type: 'sources', text: sources }, index, isEnabled)
  assert.equal(switched(0, false), sources.replace('# Debian.\n', '# Debian.\nEnabled: no\n'))
  assert.equal(switched(1, true), sources.replace('Enabled: no', 'Enabled: yes'))
  assert.equal(switched(0, true), sources)
  assert.equal(switched(1, false), sources)
  assert.deepEqual(
    parseStanzas(switched(0, false)).map(({ isEnabled }) => isEnabled),
    [false, false],
  )
})
