import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseLines, parseStanzas } from './package-sources.ts'
import { parseInstalled, parsePackageFacts, parseUpgrades } from './packages.ts'

test('only what is installed counts', () => {
  const text =
    'b\t2\tall\tx\topt\tinstalled\tB\na\t1:1+b3\tamd64\ty\trequired\tinstalled\tA\nc\t3\tall\tx\topt\tconfig-files\tC\n'
  assert.deepEqual(
    parseInstalled(text).map(({ name, version, title }) => [name, version, title]),
    [
      ['a', '1:1+b3', 'A'],
      ['b', '2', 'B'],
    ],
  )
})

test('upgrades are read with and without a version before, from one place or several', () => {
  const text = [
    'Inst bash [5.2.15-2+b8] (5.2.15-2+b13 Debian:12.15/oldstable [amd64])',
    'Inst libgcrypt20-dev [1.10.1-3] (1.10.1-3+deb12u1 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [amd64]) []',
    'Inst linux-image-9 (9.1-1 Debian:13/stable [amd64])',
    'Conf bash (5.2.15-2+b13 Debian:12.15/oldstable [amd64])',
  ].join('\n')
  assert.deepEqual(parseUpgrades(text), [
    { name: 'bash', installed: '5.2.15-2+b8', version: '5.2.15-2+b13', origin: 'Debian', arch: 'amd64' },
    { name: 'libgcrypt20-dev', installed: '1.10.1-3', version: '1.10.1-3+deb12u1', origin: 'Debian', arch: 'amd64' },
    { name: 'linux-image-9', installed: undefined, version: '9.1-1', origin: 'Debian', arch: 'amd64' },
  ])
})

test('facts of a package are those of its first entry', () => {
  const text =
    'Package: a\nSection: admin\nPriority: optional\nDescription-en: short\n long\n .\n more\n\nPackage: a\nSection: old\n'
  assert.deepEqual(parsePackageFacts(text).get('a'), {
    section: 'admin',
    priority: 'optional',
    title: 'short',
    description: 'long\n\nmore',
  })
})

test('sources are read in both forms, also those switched off', () => {
  const [on, off, ...others] = parseLines(
    'deb [arch=amd64,i386 signed-by=/k.gpg] https://a.example/debian stable main contrib # ours\n# deb-src http://b.example x/\n# a remark\n',
  )
  assert.deepEqual(on, {
    types: ['deb'],
    uris: ['https://a.example/debian'],
    suites: ['stable'],
    components: ['main', 'contrib'],
    options: { arch: ['amd64', 'i386'], 'signed-by': ['/k.gpg'] },
    isEnabled: true,
    comment: 'ours',
  })
  assert.deepEqual([off?.types, off?.isEnabled, off?.components], [['deb-src'], false, []])
  assert.deepEqual(others, [])
  const [stanza] = parseStanzas(
    '# note\nTypes: deb deb-src\nURIs: http://a.example\nSuites: s\n t\nComponents: main\nEnabled: no\nSigned-By: /k\n',
  )
  assert.deepEqual(stanza, {
    types: ['deb', 'deb-src'],
    uris: ['http://a.example'],
    suites: ['s', 't'],
    components: ['main'],
    options: { 'Signed-By': ['/k'] },
    isEnabled: false,
    comment: 'note',
  })
})
