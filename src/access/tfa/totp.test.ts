import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { readBase32, writeBase32 } from '#base/base32.ts'
import { readOtpauth, totpCode, type TotpSettings, totpStep } from './totp.ts'

/** RFC 6238, appendix B: the secret is as long as the hash. */
const secretOf = (bytes: number) => writeBase32(Buffer.from('1234567890'.repeat(7).slice(0, bytes)))
const eightDigits = { digits: 8, periodSeconds: 30 } as const
const sha1: TotpSettings = { secret: secretOf(20), algorithm: 'SHA1', ...eightDigits }
const sha256: TotpSettings = { secret: secretOf(32), algorithm: 'SHA256', ...eightDigits }
const sha512: TotpSettings = { secret: secretOf(64), algorithm: 'SHA512', ...eightDigits }

test('codes are those of RFC 6238', () => {
  const table: [number, string, string, string][] = [
    [59, '94287082', '46119246', '90693936'],
    [1_111_111_109, '07081804', '68084774', '25091201'],
    [1_111_111_111, '14050471', '67062674', '99943326'],
    [1_234_567_890, '89005924', '91819424', '93441116'],
    [2_000_000_000, '69279037', '90698825', '38618901'],
    [20_000_000_000, '65353130', '77737706', '47863826'],
  ]
  for (const [time, ...codes] of table) {
    const step = Math.floor(time / 30)
    assert.deepEqual(
      [sha1, sha256, sha512].map((settings) => totpCode(settings, step)),
      codes,
      String(time),
    )
  }
})

test('base32 is that of RFC 4648', () => {
  const table = { '': '', f: 'MY', fo: 'MZXQ', foo: 'MZXW6', foob: 'MZXW6YQ', fooba: 'MZXW6YTB', foobar: 'MZXW6YTBOI' }
  for (const [text, expected] of Object.entries(table)) {
    assert.equal(writeBase32(Buffer.from(text)), expected)
    assert.equal(readBase32(`${expected.toLowerCase()}======`)?.toString(), text)
  }
  // No letter, a length no bytes have, bits left over that are not zero.
  for (const wrong of ['M1', 'MZ XQ', 'M', 'MZX', 'MZ', 'ééééé']) assert.equal(readBase32(wrong), undefined, wrong)
})

test('what is written in base32 is read back', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
      assert.deepEqual(readBase32(writeBase32(bytes)), Buffer.from(bytes))
    }),
  )
})

const settings = fc.record({
  secret: fc.uint8Array({ minLength: 10, maxLength: 64 }).map(writeBase32),
  algorithm: fc.constantFrom('SHA1' as const, 'SHA256' as const, 'SHA512' as const),
  digits: fc.integer({ min: 6, max: 8 }),
  periodSeconds: fc.integer({ min: 10, max: 120 }),
})

test('a code holds in its step and those beside it, and in none once it was used', () => {
  fc.assert(
    fc.property(
      settings,
      fc.integer({ min: 1_000_000_000, max: 4_000_000_000 }),
      fc.integer({ min: -3, max: 3 }),
      (given, now, away) => {
        const step = Math.floor(now / given.periodSeconds) + away
        const code = totpCode(given, step)
        const found = totpStep(given, code, now, -1)
        // Another step may have the same code by chance; then that one is meant.
        if (Math.abs(away) <= 1) assert.ok(found !== undefined && totpCode(given, found) === code)
        else if (found !== undefined) assert.equal(totpCode(given, found), code)
        if (found !== undefined) assert.notEqual(totpStep(given, code, now, found), found)
        assert.equal(totpStep(given, `${code}0`, now, -1), undefined)
        assert.equal(totpStep(given, '', now, -1), undefined)
      },
    ),
  )
})

test('what apps write is understood, and what is out of bounds is refused without repeating it', () => {
  const secret = secretOf(20)
  const read = readOtpauth(`otpauth://totp/x?secret=${secret.toLowerCase()}&issuer=Y`)
  assert.deepEqual(read, { ok: true, value: { secret, algorithm: 'SHA1', digits: 6, periodSeconds: 30 } })
  const wrongs: [string, RegExp][] = [
    ['', /otpauth/],
    [`otpauth://hotp/x?secret=${secret}`, /otpauth/],
    ['otpauth://totp/x?secret=MZXW6', /10 to 128 bytes/],
    ['otpauth://totp/x', /otpauth/],
    [`otpauth://totp/x?secret=${secret}1`, /Base32/],
    [`otpauth://totp/x?secret=${writeBase32(Buffer.alloc(129))}`, /10 to 128 bytes/],
    [`otpauth://totp/x?secret=${secret}&algorithm=MD5`, /algorithm/],
    [`otpauth://totp/x?secret=${secret}&digits=5`, /digits/],
    [`otpauth://totp/x?secret=${secret}&digits=1e1`, /digits/],
    [`otpauth://totp/x?secret=${secret}&period=0`, /period/],
    [`otpauth://totp/x?secret=${secret}&period=999999999`, /period/],
  ]
  for (const [text, complaint] of wrongs) {
    const wrong = readOtpauth(text)
    assert.ok(!wrong.ok, text)
    assert.match(wrong.complaint, complaint)
    assert.ok(!wrong.complaint.includes(secret))
  }
})
