import assert from 'node:assert/strict'
import { cp, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { machine } from '#host/exec.ts'
import { qemuProgram } from './launch.ts'
import { missingSpice } from './spice.ts'

const modules = `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu/qemu`

/** What the real QEMU says last when it was installed without its modules for SPICE. */
async function lastWordsWithoutSpice(argv: readonly string[]): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'hako-modules-'))
  try {
    const kept = (await readdir(modules)).filter((name) => !/spice|qxl|usb-redirect/.test(name))
    for (const name of kept) await cp(join(modules, name), join(directory, name))
    const hidden = ['sh', '-c', 'mount --bind "$0" "$1" && shift && exec "$@"', directory, modules]
    const qemu = [qemuProgram, '-S', '-nodefaults', '-display', 'none', '-accel', 'tcg', ...argv]
    const { stderr } = await machine().run(['unshare', '--mount', ...hidden, ...qemu], { okCodes: [1] })
    return stderr.trim().split('\n').at(-1) ?? ''
  } finally {
    await rm(directory, { recursive: true })
  }
}

test('a QEMU without SPICE is told from one that fails for another reason', async () => {
  for (const argv of [
    ['-spice', 'unix=on,addr=/nowhere'],
    ['-device', 'qxl-vga'],
    ['-device', 'qxl'],
    ['-chardev', 'spicevmc,id=a,name=vdagent'],
    ['-device', 'qemu-xhci', '-chardev', 'null,id=a', '-device', 'usb-redir,chardev=a'],
    ['-audiodev', 'spice,id=a'],
  ]) {
    const said = await lastWordsWithoutSpice(argv)
    const fault = missingSpice(said.replace(/^qemu-system-\w+: /, ''), said)
    assert.ok(isFault(fault, 'missing'), `${argv.join(' ')}: ${said}`)
    assert.match(fault.remedy ?? '', /qemu-system-modules-spice/)
  }
  const other = await lastWordsWithoutSpice(['-device', 'no-such-device'])
  assert.match(other, /no-such-device/)
  assert.equal(missingSpice(other, other), undefined)
})
