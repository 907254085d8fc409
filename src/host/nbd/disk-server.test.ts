import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdtempDisposable, readdir, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { endProcess, findProcesses, startTimeOf } from '../programs/proc.ts'
import { diskSocket, endDiskServer, serveDisks } from './disk-server.ts'

/** As the real one: a socket for each disk, given away last. */
const server = `
  const [sockets, uid, , ...disks] = process.argv.slice(2)
  for (const disk of disks) {
    const path = sockets.replace('--sockets=', '') + '/' + disk + '.sock'
    require('node:net').createServer().listen(path, () => require('node:fs').chownSync(path, Number(uid.slice(6)), 0))
  }`

test('of many who start or end it at once none is in the way of another: one server serves, and goes with its folder', async () => {
  await using place = await mkdtempDisposable(join(tmpdir(), 'disk-server-'))
  const script = join(place.path, 'server.cjs')
  await writeFile(script, server)
  const directory = join(place.path, 'below/100')
  const program = { command: [process.execPath, script], env: {} } as const
  const serve = () => serveDisks({ program, from: 'x', disks: ['scsi0', 'virtio1'], directory, uid: 12_345 })
  const servers = () => findProcesses((argv) => argv.includes(`--sockets=${directory}`))
  const expected = { scsi0: diskSocket(directory, 'scsi0'), virtio1: diskSocket(directory, 'virtio1') }

  assert.deepEqual(
    await Promise.all(Array.from({ length: 6 }, serve)),
    Array.from({ length: 6 }, () => expected),
  )
  assert.equal((await servers()).length, 1)
  await endDiskServer(directory, async () => false)
  const [pid = -1] = await servers()
  await endProcess(pid, await startTimeOf(pid), { graceMs: 0 })
  assert.deepEqual(await serve(), expected)

  for (let round = 0; round < 5; round += 1) {
    await Promise.all([endDiskServer(directory), serve(), endDiskServer(directory), serve()])
    assert.deepEqual(await serve(), expected)
    assert.equal((await servers()).length, 1)
  }
  await endDiskServer(directory)
  assert.deepEqual(await servers(), [])
  assert.ok(!existsSync(directory))
  assert.deepEqual(await readdir(join(place.path, 'below')), [])
})
