import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { isAlive, startTimeOf } from './proc.ts'
import { type Pty, startOnPty } from './pty.ts'
import { connectToProcess } from './unix-peer.ts'

function shownBy({ stream }: Pty): () => string {
  let text = ''
  stream.on('data', (part: Buffer) => (text += part.toString('utf8')))
  return () => text
}

const until = (is: () => boolean | Promise<boolean>) => waitFor(is, { what: 'the terminal', timeoutMs: 60_000 })

test('a program has a terminal of its own, that knows its size and its interrupt key', async () => {
  const pty = await startOnPty([
    'sh',
    '-c',
    'tty; stty size; trap "echo interrupted; exit" INT; read line; echo "<$line>"; sleep 60',
  ])
  const shown = shownBy(pty)
  await until(() => /^\/dev\/pts\/\d+\r\n24 80\r\n$/.test(shown()))
  pty.stream.write('hello\n')
  await until(() => shown().includes('<hello>'))
  pty.stream.write('\u0003')
  await until(() => shown().includes('interrupted'))
  await pty.ended
  await until(() => pty.stream.destroyed)
  pty.resize(10, 10)
})

test('a new size is told to what runs there', async () => {
  const pty = await startOnPty(['sh', '-c', 'trap "stty size" WINCH; echo ready; while :; do sleep 0.1; done'])
  const shown = shownBy(pty)
  await until(() => shown().includes('ready'))
  pty.resize(101, 33)
  await until(() => shown().includes('33 101'))
  pty.stream.destroy()
  await pty.ended
})

test('closing the terminal ends the program, also one that does not want to', async () => {
  for (const script of ['sleep 60', 'trap "" HUP TERM; echo deaf; while :; do sleep 0.1; done']) {
    const pty = await startOnPty(['sh', '-c', script])
    const startTime = await startTimeOf(pty.pid)
    const shown = shownBy(pty)
    if (script.includes('deaf')) await until(() => shown().includes('deaf'))
    pty.stream.destroy()
    await pty.ended
    assert.equal(await isAlive(pty.pid, startTime ?? 0), false)
  }
})

test('nobody reads: the program waits, and nothing piles up here', async () => {
  const pty = await startOnPty(['sh', '-c', 'yes | head -c 2000000; echo done'])
  let taken = 0
  pty.stream.once('data', (part: Buffer) => {
    taken += part.length
    pty.stream.pause()
  })
  await until(() => taken > 0)
  assert.ok(pty.stream.readableLength < 200_000)
  pty.stream.on('data', (part: Buffer) => (taken += part.length))
  pty.stream.resume()
  await until(() => taken >= 2_000_000)
  await pty.ended
})

test('who listens on a socket must be who was expected', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'hako-peer-'))
  const path = join(directory, 'socket')
  const server = createServer((socket) => socket.on('error', () => {})).listen(path)
  await once(server, 'listening')
  try {
    const socket = await connectToProcess(path, { pid: process.pid, uid: 0 })
    assert.ok(socket.writable)
    socket.destroy()
    for (const wrong of [
      { pid: 1, uid: 0 },
      { pid: process.pid, uid: 1_000 },
    ]) {
      await assert.rejects(connectToProcess(path, wrong), (fault) => isFault(fault, 'denied'))
    }
    await assert.rejects(connectToProcess(join(directory, 'none'), { pid: 1, uid: 0 }), (fault) =>
      isFault(fault, 'unavailable'),
    )
  } finally {
    server.close()
    await rm(directory, { recursive: true })
  }
})
