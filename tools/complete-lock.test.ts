import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { completed, type Lock, locks } from './complete-lock.ts'

test('the locks name every optional package, so that any npm installs from them', () => {
  for (const path of locks) {
    const lock = JSON.parse(readFileSync(path, 'utf8')) as Lock
    const all = Object.keys(completed(lock).packages)
    assert.deepEqual(all, Object.keys(lock.packages), `${path}: run node tools/complete-lock.ts`)
  }
})

test('a package for another platform is locked as one', () => {
  const { packages } = completed({
    packages: { 'node_modules/a': { dev: true, optionalDependencies: { '@a/binding-linux-x64-musl': '1.0.0' } } },
  })
  assert.deepEqual(packages['node_modules/@a/binding-linux-x64-musl'], {
    version: '1.0.0',
    dev: true,
    optional: true,
    os: ['linux'],
    cpu: ['x64'],
    libc: ['musl'],
  })
})

test('the locks name no registry', () => {
  for (const path of locks) assert.doesNotMatch(readFileSync(path, 'utf8'), /"resolved"/)
})
