/** VLANs and bonds of a machine, on one that has them. */
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { machine } from '#host/exec.ts'
import { runOnItsOwnMachine } from '../machine-of-its-own.ts'

const inside = join(import.meta.dirname, '../fixtures/machine/host-network.ts')

test('VLANs keep guests apart, bonds carry on, and both are taken back', async () => {
  // Compiled here: an emulated processor takes half a minute for what this one does in a second.
  const compiled = await mkdtemp('/var/tmp/hako-compiled-')
  const env = { NODE_COMPILE_CACHE: compiled }
  await machine().run([process.execPath, '--disable-warning=ExperimentalWarning', inside, 'load-only'], { env })
  const script = [
    'export NO_COLOR=1 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    'modprobe -a bridge 8021q bonding tun',
    `export NODE_COMPILE_CACHE=${compiled}`,
    `cd ${join(import.meta.dirname, '../..')}`,
    `${process.execPath} --disable-warning=ExperimentalWarning --test-reporter=tap ${inside}`,
  ].join('\n')
  const { code, output } = await runOnItsOwnMachine(script).finally(() => rm(compiled, { recursive: true }))
  assert.equal(code, 0, output)
  assert.match(output, /^# pass 5$/m)
})
