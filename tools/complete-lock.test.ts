import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { completed, type Lock } from './complete-lock.ts'

const lock = JSON.parse(readFileSync(join(import.meta.dirname, '../package-lock.json'), 'utf8')) as Lock

test('the lock names every optional package, so that any npm installs from it', () => {
  assert.deepEqual(
    Object.keys(completed(lock).packages),
    Object.keys(lock.packages),
    'run: node tools/complete-lock.ts',
  )
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

test('the lock names no registry', () => {
  assert.ok(!JSON.stringify(lock).includes('"resolved"'))
})
