import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { readOtpauth } from '#access/tfa/totp.ts'
import { newAppSecret } from './app-secret.ts'

test('what is handed to an app is what the node reads, whoever it is for', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 20, maxLength: 20 }), fc.string({ unit: 'grapheme' }), (bytes, account) => {
      const read = readOtpauth(newAppSecret({ bytes: () => bytes, uuid: () => '' }, account))
      assert.ok(read.ok)
      const { secret, ...others } = read.value
      assert.equal(secret.length, 32)
      assert.deepEqual(others, { algorithm: 'SHA1', digits: 6, periodSeconds: 30 })
    }),
  )
})
