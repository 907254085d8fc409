/** The list of system packages, as launcher and doctor read it. */
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Host } from '#host/host.ts'
import { checkPackages, parsePackages } from './packages.ts'

const file = join(import.meta.dirname, '../../packages.txt')

test('every package has an architecture, a need, and a purpose in both languages', async () => {
  const text = await readFile(file, 'utf8')
  for (const line of text.split('\n').filter((one) => one !== '' && !one.startsWith('#'))) {
    assert.match(
      line,
      /^[a-z0-9.+-]+ +\| (any|amd64|arm64) +\| (run|test) +\| \S[^|]+ \| [^|]*[^\x20-\x7f][^|]*$/,
      line,
    )
  }
  assert.ok(parsePackages(text).length > 10)
})

test('a package that is not installed is named with its purpose', async () => {
  const host: Host = {
    run: () => Promise.resolve({ code: 1, stdout: 'installed kmod\nconfig-files lxc\n', stderr: '' }),
  }
  const list =
    'kmod | any | run | modules | x\nlxc | any | run | runs containers | x\nopenssl | any | test | TLS | x\nextlinux | arm64 | run | boot | x\n'
  const check = await checkPackages(host, list, 'x64')
  assert.equal(check.state, 'missing')
  assert.equal(check.found.en, 'not installed: lxc (runs containers)')
})
