import assert from 'node:assert/strict'
import { chmod, chown, mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { ownerOfProgram, rootsProgram } from './trusted-program.ts'

const nobody = 65_534

/** A program in a folder of root's own, below another that everybody may write to and nobody move things in. */
async function world() {
  const top = await realpath(await mkdtemp('/var/tmp/hako-trusted-'))
  await chmod(top, 0o1777)
  const folder = join(top, 'folder')
  await mkdir(folder, { mode: 0o755 })
  const program = join(folder, 'program')
  await writeFile(program, '#!/bin/sh\n', { mode: 0o755 })
  return { top, folder, program, [Symbol.asyncDispose]: () => rm(top, { recursive: true }) }
}

const denied = (text: RegExp) => (fault: unknown) => {
  assert.ok(isFault(fault, 'denied'), String(fault))
  assert.match(fault.message, text)
  return true
}

const both = async (program: string, text: RegExp) => {
  await assert.rejects(rootsProgram(program), denied(text))
  await assert.rejects(ownerOfProgram(program, 'hookscript'), denied(text))
}

test('what only root can change is run as root, behind whatever link leads to it', async () => {
  await using at = await world()
  assert.equal(await rootsProgram(at.program), at.program)
  assert.deepEqual(await ownerOfProgram(at.program, 'hookscript'), { uid: 0, gid: 0 })
  const link = join(at.top, 'link')
  await symlink(at.program, link)
  assert.equal(await rootsProgram(link), at.program)
  await assert.rejects(ownerOfProgram(link, 'hookscript'), denied(/^hookscript is no plain file$/))
})

test('what others can change, or put another in the place of, is not run as root', async () => {
  await using at = await world()
  await chmod(at.program, 0o775)
  await both(at.program, /is not run: others than (root|its owner) can change '.*\/program'$/)
  await chmod(at.program, 0o644)
  await both(at.program, /is not executable$/)
  await chmod(at.program, 0o755)
  await chmod(at.folder, 0o777)
  await both(at.program, /is not run: others than root can change '.*\/folder'$/)
  await chmod(at.folder, 0o755)
  await chown(at.folder, nobody, nobody)
  await both(at.program, /is not run: others than root can change '.*\/folder'$/)
  await chown(at.folder, 0, 0)
  await chmod(at.top, 0o777)
  await both(at.program, /others than root can change '[^']*hako-trusted-[^/]*'$/)
})

test('what belongs to somebody else is run with their rights, wherever it lies, and never as root', async () => {
  await using at = await world()
  await chown(at.program, nobody, nobody)
  await chmod(at.folder, 0o777)
  assert.deepEqual(await ownerOfProgram(at.program, 'hookscript'), { uid: nobody, gid: nobody })
  await assert.rejects(rootsProgram(at.program), denied(/others than root can change '.*\/program'$/))
  await rm(at.program)
  await assert.rejects(rootsProgram(at.program), (fault) => isFault(fault, 'missing'))
  await assert.rejects(ownerOfProgram(at.program, 'hookscript'), (fault) => isFault(fault, 'missing'))
})
