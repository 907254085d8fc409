import assert from 'node:assert/strict'
import { closeSync, existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { spawnDetached } from './exec.ts'
import { mayUseRings, openTap, peerCredentials } from './native.ts'
import { endProcess, startTimeOf } from './programs/proc.ts'

const tapName = `hkt${process.pid}`
const exists = (name: string) => existsSync(`/sys/class/net/${name}`)

test('a tap lives as long as its descriptor', () => {
  const fd = openTap(tapName, { owner: 4711 })
  try {
    assert.ok(exists(tapName))
    assert.throws(
      () => openTap(tapName),
      (error) => isFault(error, 'conflict') && error.message.includes(tapName),
    )
  } finally {
    closeSync(fd)
  }
  assert.equal(exists(tapName), false)
})

test('rings are used only where the administrator lets everybody have them', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'hk-native-'))
  const setting = join(directory, 'io_uring_disabled')
  try {
    // As kernels before 6.6, where there is nothing to read; whether this one has rings at all is its own affair.
    const hasRings = mayUseRings(setting)
    for (const [says, isForAll] of [
      ['0', true],
      ['1', false],
      ['2', false],
    ] as const) {
      await writeFile(setting, `${says}\n`)
      assert.equal(mayUseRings(setting), isForAll && hasRings, says)
    }
  } finally {
    await rm(directory, { recursive: true })
  }
})

test('a tap handed to a program lives on with that program', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'hk-native-'))
  const fd = openTap(tapName)
  const pid = await spawnDetached(['sleep', '60'], { outputFile: join(directory, 'log'), descriptors: [fd] })
  closeSync(fd)
  try {
    assert.ok(exists(tapName))
  } finally {
    await endProcess(pid, await startTimeOf(pid), { graceMs: 0 })
    await rm(directory, { recursive: true })
  }
  assert.equal(exists(tapName), false)
})

test('a name no interface can have, or another has, is refused', () => {
  assert.throws(
    () => openTap('sixteen-letters-'),
    (error) => isFault(error, 'invalid'),
  )
  assert.throws(
    () => openTap('lo'),
    (error) => isFault(error, 'invalid') && /not a tap/.test(error.message),
  )
})

/** The descriptor is no public property of a socket; this is how the daemon finds it as well. */
function descriptorOf(socket: Socket): number {
  const handle: unknown = Reflect.get(socket, '_handle')
  assert.ok(typeof handle === 'object' && handle !== null && 'fd' in handle && typeof handle.fd === 'number')
  return handle.fd
}

test('the kernel says who connected to a unix socket', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'hk-native-'))
  const path = join(directory, 's')
  const server: Server = createServer()
  server.listen(path)
  await once(server, 'listening')
  const client = connect(path)
  try {
    const [accepted] = (await once(server, 'connection')) as [Socket]
    assert.deepEqual(peerCredentials(descriptorOf(accepted)), { pid: process.pid, uid: 0, gid: 0 })
    accepted.destroy()
  } finally {
    client.destroy()
    server.close()
    await rm(directory, { recursive: true })
  }
})

test('credentials of something that is no socket are a fault', () => {
  assert.throws(
    () => peerCredentials(9999),
    (error) => isFault(error, 'failed'),
  )
})
