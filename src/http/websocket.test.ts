import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { createServer, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Duplex } from 'node:stream'
import { test } from 'node:test'
import { systemClock, waitFor } from '#base/clock.ts'
import { carryUpgrade } from './websocket.ts'

test('what the daemon said last still reaches a client who is slow to take it', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'hako-carry-'))
  const daemonSocket = join(directory, 'front.sock')
  const daemon = createServer((socket: Socket) => {
    socket.on('error', () => {})
    socket.once('data', () => socket.end('last words', () => socket.destroy()))
  }).listen(daemonSocket)
  await once(daemon, 'listening')
  try {
    let text = ''
    let take: (() => void) | undefined
    const client = new Duplex({
      read() {},
      write(part: Buffer, _encoding, done) {
        take = () => {
          text += part.toString()
          done()
        }
      },
    })
    const request = { method: 'GET', url: '/', rawHeaders: [], socket: {} } as unknown as IncomingMessage
    const hungUp = once(daemon, 'connection').then(([socket]: unknown[]) => once(socket as Socket, 'close'))
    carryUpgrade(request, client, Buffer.alloc(0), { daemonSocket, clock: systemClock })
    await hungUp
    // The front knows it, and has nothing left but to wait for its client.
    await waitFor(() => client.writableEnded || client.destroyed, {
      what: 'the end to be passed on',
      timeoutMs: 60_000,
    })
    await waitFor(() => take !== undefined, { what: 'a word for the client', timeoutMs: 60_000 })
    assert.equal(client.destroyed, false)
    take?.()
    await once(client, 'finish')
    assert.equal(text, 'last words')
    client.destroy()
  } finally {
    daemon.close()
    await rm(directory, { recursive: true })
  }
})

test('a refusal arrives, however soon the daemon has hung up', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'hako-carry-'))
  const daemonSocket = join(directory, 'front.sock')
  const refusing = `require('net').createServer((socket) => {
    socket.once('data', () => socket.end('no', () => socket.destroy()))
    socket.once('close', () => require('fs').unlinkSync(process.argv[1]))
  }).listen(process.argv[1], () => console.log('up'))`
  const daemon = spawn(process.execPath, ['-e', refusing, daemonSocket], { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    await once(daemon.stdout, 'data')
    const { write } = Socket.prototype as { write: (this: Socket, ...args: unknown[]) => boolean }
    t.mock.method(Socket.prototype, 'write', function (this: Socket, ...args: unknown[]) {
      const isTaken = write.apply(this, args)
      // On a busy machine the daemon may have done all of its work before the front has its next turn.
      const deadline = systemClock.monotonic() + 60_000
      while (existsSync(daemonSocket) && systemClock.monotonic() < deadline);
      return isTaken
    })
    let text = ''
    const client = new Duplex({
      read() {},
      write(part: Buffer, _encoding, done) {
        text += part.toString()
        done()
      },
    })
    const request = { method: 'GET', url: '/', rawHeaders: [], socket: {} } as unknown as IncomingMessage
    carryUpgrade(request, client, Buffer.alloc(0), { daemonSocket, clock: systemClock })
    await waitFor(() => client.writableFinished || client.destroyed, { what: 'the end', timeoutMs: 60_000 })
    assert.equal(text, 'no')
    client.destroy()
  } finally {
    daemon.kill('SIGKILL')
    await rm(directory, { recursive: true })
  }
})
