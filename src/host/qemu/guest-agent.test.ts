import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { AgentClient } from './guest-agent.ts'

const self = { pid: process.pid, uid: process.getuid?.() ?? 0 }

interface Said {
  readonly execute: string
  readonly arguments: { readonly id?: number }
}

/**
 * The far end of the port. It treats 0xFF as the real agent does: forget the open line, answer with a
 * parse error. `onCommand` answers everything but the sync, and the sync too when it returns true.
 */
async function scripted(onCommand: (socket: Socket, said: Said) => boolean | void) {
  const directory = await mkdtemp(join(tmpdir(), 'hk-qga-'))
  const path = join(directory, 'qga.sock')
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    let open = ''
    socket.on('data', (part) => {
      for (const character of part.toString('latin1')) {
        if (character === '\xff') {
          open = ''
          socket.write('{"error": {"class": "GenericError", "desc": "JSON parse error, stray \'\\\\xFF\'"}}\n')
        } else if (character === '\n') {
          const said: Said = JSON.parse(open)
          open = ''
          if (onCommand(socket, said) !== true && said.execute === 'guest-sync') {
            socket.write(`{"return": ${said.arguments.id}}\n`)
          }
        } else open += character
      }
    })
  })
  server.listen(path)
  await once(server, 'listening')
  return {
    path,
    drop: () => {
      for (const socket of sockets) socket.destroy()
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await rm(directory, { recursive: true })
    },
  }
}

test('what an earlier client left on the wire reaches nobody', async () => {
  await using port = await scripted((socket, { execute, arguments: args }) => {
    if (execute === 'guest-ping') socket.write('{"return": {}}\n')
    if (execute !== 'guest-sync') return
    socket.write(`lf of an old reply"}\n{"return": 12345}\n{"return": {"old": true}}\n\n{"return": ${args.id}}\n`)
    return true
  })
  await using agent = await AgentClient.connect(port.path, { listener: self })
  assert.deepEqual(await agent.execute('guest-ping'), {})
})

test('whoever listens in the place of QEMU is asked nothing', async () => {
  const heard: string[] = []
  await using port = await scripted((_socket, { execute }) => void heard.push(execute))
  await assert.rejects(
    AgentClient.connect(port.path, { listener: { ...self, pid: 1 } }),
    (error) => isFault(error, 'unavailable') && isFault(error.cause, 'denied'),
  )
  await using _agent = await AgentClient.connect(port.path, { listener: self })
  assert.deepEqual(heard, ['guest-sync'])
})

test('a silent port means that no agent runs', async () => {
  await using port = await scripted(() => true)
  await assert.rejects(
    AgentClient.connect(port.path, { listener: self, timeoutMs: 30 }),
    (error) => isFault(error, 'unavailable') && error.message === 'QEMU guest agent is not running',
  )
  await assert.rejects(
    AgentClient.connect('/nonexistent/qga.sock', { listener: self }),
    (error) => isFault(error, 'unavailable') && error.message === 'QEMU guest agent is not running',
  )
})

test('the late answer of one command is never taken for the answer of the next', async () => {
  let late: (() => void) | undefined
  await using port = await scripted((socket, { execute }) => {
    if (execute === 'guest-slow') late = () => socket.write('{"return": "late"}\n')
    if (execute === 'guest-sync') late?.()
    if (execute === 'guest-quick') socket.write('{"return": "quick"}\n')
  })
  await using agent = await AgentClient.connect(port.path, { listener: self })
  await assert.rejects(agent.execute('guest-slow', {}, { timeoutMs: 30 }), (error) => isFault(error, 'timeout'))
  assert.equal(await agent.execute('guest-quick'), 'quick')
})

test('commands asked for at once go over the wire one after the other', async () => {
  let open = 0
  await using port = await scripted((socket, { execute, arguments: args }) => {
    if (execute === 'guest-sync') return
    open++
    setImmediate(() => {
      assert.equal(open--, 1)
      socket.write(`{"return": ${args.id}}\n`)
    })
  })
  await using agent = await AgentClient.connect(port.path, { listener: self })
  const ids = [1, 2, 3, 4]
  assert.deepEqual(await Promise.all(ids.map((id) => agent.execute('guest-echo', { id }))), ids)
})

test('a refusal carries the words of the agent, and the next command works', async () => {
  await using port = await scripted((socket, { execute }) => {
    if (execute === 'guest-nonsense')
      socket.write('{"error": {"class": "CommandNotFound", "desc": "The command guest-nonsense has not been found"}}\n')
    if (execute === 'guest-broken') socket.write('no json at all\n')
    if (execute === 'guest-ping') socket.write('{"return": {}}\n')
  })
  await using agent = await AgentClient.connect(port.path, { listener: self })
  await assert.rejects(
    agent.execute('guest-nonsense'),
    (error) => isFault(error, 'failed') && error.message === 'The command guest-nonsense has not been found',
  )
  await assert.rejects(
    agent.execute('guest-broken'),
    (error) => isFault(error, 'failed') && /no JSON/.test(error.message),
  )
  assert.deepEqual(await agent.execute('guest-ping'), {})
})

test('a port that was closed is opened again', async () => {
  await using port = await scripted((socket, { execute }) => {
    if (execute === 'guest-ping') socket.write('{"return": {}}\n')
    if (execute === 'guest-vanish') socket.end('{"retu')
  })
  await using agent = await AgentClient.connect(port.path, { listener: self })
  await assert.rejects(agent.execute('guest-vanish'), (error) => isFault(error, 'unavailable'))
  assert.deepEqual(await agent.execute('guest-ping'), {})
})

test('a guest cannot fill this side with an endless reply', async () => {
  await using port = await scripted((socket, { execute }) => {
    if (execute === 'guest-flood') socket.write('x'.repeat(20_000))
  })
  await using agent = await AgentClient.connect(port.path, { listener: self, replyBytes: 10_000 })
  await assert.rejects(agent.execute('guest-flood'), (error) => isFault(error, 'exhausted'))
})

test('a command without an answer is over when nobody objected', async () => {
  await using port = await scripted((socket, { execute }) => {
    if (execute === 'guest-suspend-ram') socket.write('{"error": {"class": "GenericError", "desc": "not supported"}}\n')
  })
  await using agent = await AgentClient.connect(port.path, { listener: self })
  await agent.tell('guest-shutdown', { mode: 'powerdown' }, 20)
  await assert.rejects(
    agent.tell('guest-suspend-ram'),
    (error) => isFault(error, 'failed') && error.message === 'not supported',
  )
})

test('after closing it refuses, and an abort ends waiting', async () => {
  await using port = await scripted(() => {})
  const agent = await AgentClient.connect(port.path, { listener: self })
  const stop = new AbortController()
  const command = agent.execute('guest-slow', {}, { signal: stop.signal })
  setImmediate(() => stop.abort())
  await assert.rejects(command, (error) => isFault(error, 'aborted'))
  await agent[Symbol.asyncDispose]()
  await assert.rejects(agent.execute('guest-ping'), (error) => isFault(error, 'aborted'))
})

test('the real agent answers, also after a client that left half a line behind', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'hk-qga-'))
  const path = join(directory, 'qga.sock')
  const daemon = spawn(
    'qemu-ga',
    ['--method', 'unix-listen', '--path', path, '--statedir', directory, '--pidfile', join(directory, 'pid')],
    { stdio: 'ignore' },
  )
  try {
    await waitFor(() => existsSync(path), { what: 'the socket of qemu-ga', timeoutMs: 60_000 })
    const rude = connect(path)
    await once(rude, 'connect')
    rude.end('{"execute": "guest-in')
    await once(rude, 'finish')
    await using agent = await AgentClient.connect(path, { listener: { ...self, pid: daemon.pid ?? 0 } })
    const info = await agent.execute<{ version: string }>('guest-info')
    assert.match(info.version, /^\d+\./)
    await assert.rejects(
      agent.execute('guest-nonsense'),
      (error) => isFault(error, 'failed') && /guest-nonsense/.test(error.message),
    )
    await writeFile(join(directory, 'file'), 'content')
    const handle = await agent.execute<number>('guest-file-open', { path: join(directory, 'file'), mode: 'r' })
    const read = await agent.execute<{ 'buf-b64': string }>('guest-file-read', { handle })
    assert.equal(Buffer.from(read['buf-b64'], 'base64').toString(), 'content')
    await agent.execute('guest-file-close', { handle })
  } finally {
    daemon.kill('SIGKILL')
    await rm(directory, { recursive: true })
  }
})
