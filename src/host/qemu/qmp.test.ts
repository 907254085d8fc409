import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { asQmpError, QmpClient } from './qmp.ts'

const self = { pid: process.pid, uid: process.getuid?.() ?? 0 }

/** A peer that answers as `script` says, each line it receives handed over as a document. */
async function scripted(script: (socket: Socket, command: { execute: string; id: number }) => void, greet = true) {
  const directory = await mkdtemp(join(tmpdir(), 'hk-qmp-'))
  const path = join(directory, 'qmp.sock')
  const sockets = new Set<Socket>()
  const commands: string[] = []
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    if (greet) socket.write('{"QMP": {"version": {}, "capabilities": []}}\r\n')
    let open = ''
    socket.on('data', (part) => {
      const lines = (open + part.toString()).split('\n')
      open = lines.pop() ?? ''
      for (const line of lines) {
        const command = JSON.parse(line)
        commands.push(command.execute)
        if (command.execute === 'qmp_capabilities') socket.write(`{"return": {}, "id": ${command.id}}\r\n`)
        else script(socket, command)
      }
    })
  })
  server.listen(path)
  await once(server, 'listening')
  return {
    path,
    commands: () => commands,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await rm(directory, { recursive: true })
    },
  }
}

test('replies find their command when they come late, split and out of order', async () => {
  const waiting: number[] = []
  await using peer = await scripted((socket, { id }) => {
    waiting.push(id)
    if (waiting.length < 2) return
    const [first, second] = waiting
    const text = `{"return": "second", "id": ${second}}\r\n{"event": "RESUME", "timestamp": {"seconds": 2, "microseconds": 5}}\r\n{"return": "first", "id": ${first}}\r\n`
    socket.write(text.slice(0, 20))
    setImmediate(() => socket.write(text.slice(20)))
  })
  await using qmp = await QmpClient.connect(peer.path, { listener: self })
  const resumed = qmp.waitForEvent('RESUME')
  assert.deepEqual(await Promise.all([qmp.execute('one'), qmp.execute('two')]), ['first', 'second'])
  assert.deepEqual(await resumed, { name: 'RESUME', data: {}, timestampUs: 2_000_005 })
})

test('a command without an answer ends at its limit, and the late answer reaches nobody', async () => {
  let late: (() => void) | undefined
  await using peer = await scripted((socket, { execute, id }) => {
    if (execute === 'slow') late = () => socket.write(`{"return": "too late", "id": ${id}}\n`)
    else {
      late?.()
      socket.write(`{"return": "prompt", "id": ${id}}\n`)
    }
  })
  await using qmp = await QmpClient.connect(peer.path, { listener: self })
  await assert.rejects(
    qmp.execute('slow', {}, { timeoutMs: 20 }),
    (error) => isFault(error, 'timeout') && /'slow'/.test(error.message),
  )
  assert.equal(await qmp.execute('next'), 'prompt')
})

test('a peer that closes in the middle of a reply fails every open command', async () => {
  await using peer = await scripted((socket, { id }) => socket.end(`{"return": {"half`, () => void id))
  await using qmp = await QmpClient.connect(peer.path, { listener: self })
  const event = qmp.waitForEvent('NEVER')
  const ended = Promise.withResolvers<string>()
  qmp.onEnd((reason) => ended.resolve(reason.kind))
  await assert.rejects(qmp.execute('x'), (error) => isFault(error, 'unavailable') && error.message.includes(peer.path))
  await assert.rejects(event, (error) => isFault(error, 'unavailable'))
  await assert.rejects(qmp.execute('y'), (error) => isFault(error, 'unavailable'))
  assert.equal(await ended.promise, 'unavailable')
})

test('a peer that does not speak QMP is found out', async () => {
  await using peer = await scripted((socket) => socket.write('HTTP/1.1 400 Bad Request\n'))
  await using qmp = await QmpClient.connect(peer.path, { listener: self })
  await assert.rejects(
    qmp.execute('x'),
    (error) => isFault(error, 'unavailable') && /does not speak QMP/.test(error.message),
  )
})

test('a reply beyond the bound closes the connection', async () => {
  await using peer = await scripted((socket) => socket.write('x'.repeat(5_000)))
  await using qmp = await QmpClient.connect(peer.path, { listener: self, replyBytes: 4_000 })
  await assert.rejects(qmp.execute('x'), (error) => isFault(error, 'exhausted'))
})

test('a monitor that does not greet is reported with what may hold it', async () => {
  await using peer = await scripted(() => {}, false)
  await assert.rejects(
    QmpClient.connect(peer.path, { listener: self, timeoutMs: 30 }),
    (error) => isFault(error, 'timeout') && /one at a time/.test(error.remedy ?? ''),
  )
})

test('an abort ends waiting at once', async () => {
  await using peer = await scripted(() => {})
  await using qmp = await QmpClient.connect(peer.path, { listener: self })
  const stop = new AbortController()
  const command = qmp.execute('x', {}, { signal: stop.signal })
  const event = qmp.waitForEvent('X', () => true, 10_000, stop.signal)
  stop.abort()
  await assert.rejects(command, (error) => isFault(error, 'aborted'))
  await assert.rejects(event, (error) => isFault(error, 'aborted'))
})

test('whoever listens in the place of QEMU hears nothing and is believed nothing', async () => {
  const heard = Promise.withResolvers<string>()
  await using peer = await scripted(() => heard.resolve('a command'))
  for (const listener of [
    { ...self, pid: 1 },
    { ...self, uid: self.uid + 1 },
  ]) {
    await assert.rejects(QmpClient.connect(peer.path, { listener }), (error) => isFault(error, 'denied'))
  }
  await using qmp = await QmpClient.connect(peer.path, { listener: self })
  void qmp.execute('known', {}, { timeoutMs: 1 }).catch(() => {})
  assert.deepEqual([await heard.promise, peer.commands()], ['a command', ['qmp_capabilities', 'known']])
})

test('nobody at the socket is kind unavailable', async () => {
  await assert.rejects(QmpClient.connect('/nonexistent/qmp.sock', { listener: self }), (error) =>
    isFault(error, 'unavailable'),
  )
})

/** A socket is there before anybody listens on it: the kernel says which. */
function isListening(path: string): boolean {
  const lines = readFileSync('/proc/net/unix', 'utf8').split('\n')
  return lines.some((line) => line.endsWith(` ${path}`) && line.split(' ')[3] === '00010000')
}

async function realQemu() {
  const directory = await mkdtemp(join(tmpdir(), 'hk-qmp-'))
  const path = join(directory, 'qmp.sock')
  const child: ChildProcess = spawn(
    'qemu-system-x86_64',
    ['-machine', 'none', '-nodefaults', '-display', 'none', '-S', '-qmp', `unix:${path},server=on,wait=off`],
    { stdio: 'ignore' },
  )
  await waitFor(() => isListening(path), { what: 'the QMP socket', timeoutMs: 60_000 })
  return {
    path,
    child,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
      await rm(directory, { recursive: true })
    },
  }
}

test('a real QEMU answers, refuses in its own words, tells of events, and its end is noticed', async () => {
  await using qemu = await realQemu()
  await using qmp = await QmpClient.connect(qemu.path, { listener: { ...self, pid: qemu.child.pid ?? 0 } })
  const status = await qmp.execute<{ running: boolean }>('query-status')
  assert.equal(status.running, false)
  await assert.rejects(qmp.execute('device_del', { id: 'nothing' }), (error) => {
    assert.ok(isFault(error, 'failed'))
    assert.match(error.message, /^QMP command 'device_del' failed - Device 'nothing' not found$/)
    assert.equal(asQmpError(error.cause).class, 'DeviceNotFound')
    return true
  })
  const shutdown = qmp.waitForEvent('SHUTDOWN', ({ data }) => data.reason === 'host-qmp-quit')
  await qmp.execute('quit')
  await shutdown
  await waitFor(() => !qmp.isOpen, { what: 'the end of the connection', timeoutMs: 60_000 })
})

test('a QEMU that is killed fails the command in flight', async () => {
  await using qemu = await realQemu()
  await using qmp = await QmpClient.connect(qemu.path, { listener: { ...self, pid: qemu.child.pid ?? 0 } })
  const event = qmp.waitForEvent('STOP')
  qemu.child.kill('SIGKILL')
  await assert.rejects(event, (error) => isFault(error, 'unavailable'))
})
