import assert from 'node:assert/strict'
import { test } from 'node:test'
import { rootOnly } from '#rest/endpoint.ts'
import { backupJobEndpoints } from './backup.ts'

test('a hook script is given to a job, and taken from it, by root alone', () => {
  for (const [method, path, params] of [
    ['POST', '/cluster/backup', { script: '/root/x' }],
    ['PUT', '/cluster/backup/{id}', { id: 'nightly', script: '/root/x' }],
    ['PUT', '/cluster/backup/{id}', { id: 'nightly', delete: 'comment,script' }],
  ] as const) {
    const endpoint = backupJobEndpoints.find((one) => one.method === method && one.path === path)
    const needs = (given: object) => endpoint?.alsoNeeds?.of(given as never) ?? []
    assert.ok(needs(params).includes(rootOnly), JSON.stringify(params))
    assert.ok(!needs({ id: 'nightly', delete: 'comment', comment: 'x' }).includes(rootOnly))
  }
})
