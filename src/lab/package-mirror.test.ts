import assert from 'node:assert/strict'
import { test } from 'node:test'
import { machine } from '#host/exec.ts'
import { mirrorIn, packageMirror } from './package-mirror.ts'

const policy = `base-files:
  Installed: 12.4+deb12u15
  Candidate: 12.4+deb12u15
  Version table:
 *** 12.4+deb12u15 500
        500 http://deb.example.org/debian-security bookworm-security/main amd64 Packages
        500 http://deb.example.org/debian bookworm-updates/main amd64 Packages
        500 https://deb.example.org/debian bookworm/main amd64 Packages
        100 /var/lib/dpkg/status
`

test('packages come from the release, and not from what is added to it', () => {
  assert.deepEqual(mirrorIn(policy), { mirror: 'https://deb.example.org/debian', suite: 'bookworm' })
  assert.equal(mirrorIn(policy.replace('https', 'cdrom')), undefined)
  assert.equal(mirrorIn('N: Unable to locate package base-files\n'), undefined)
})

test('this machine has one', async () => {
  const { mirror, suite } = await packageMirror(machine(), 'base-files')
  assert.match(mirror, /^https?:\/\//)
  assert.match(suite, /^\w+$/)
})
