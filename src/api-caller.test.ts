import assert from 'node:assert/strict'
import { mkdtempDisposable } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { apiCaller } from './api-caller.ts'
import { settingsFrom } from './settings.ts'

test('a daemon that is killed while it answers is asked again for what only reads, and for nothing else', async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), 'api-'))
  const settings = { ...settingsFrom({}), runDir: directory.path }
  const heard: string[] = []
  // The kernel ends the connections of a process that is killed: at first sight a reply that is empty or cut.
  const ends: ((socket: Socket) => void)[] = [
    (socket) => socket.end(),
    (socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"da'),
    (socket) => socket.destroy(),
    (socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"data":"yes"}'),
  ]
  await using _ = await answering(join(directory.path, 'api.sock'), (socket, line) => {
    heard.push(line)
    ;(ends[heard.length - 1] ?? ends[0])?.(socket)
  })
  const { signal } = new AbortController()
  const caller = apiCaller(settings, 'UPID:n:1:1:1:x:1:root@pam:', signal)
  assert.equal(await caller.call({ method: 'GET', path: '/x', params: {} }, signal), 'yes')
  assert.deepEqual(
    heard,
    Array.from(ends, () => 'GET /api2/json/x HTTP/1.1'),
  )
  await assert.rejects(caller.call({ method: 'POST', path: '/x', params: {} }, signal), (error) =>
    isFault(error, 'unavailable'),
  )
  assert.deepEqual(heard.slice(ends.length), ['POST /api2/json/x HTTP/1.1'])
})

async function answering(path: string, answer: (socket: Socket, line: string) => void): Promise<AsyncDisposable> {
  const server: Server = createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', (bytes) => answer(socket, bytes.toString('latin1').split('\r\n', 1)[0] ?? ''))
  })
  await new Promise<void>((resolve) => server.listen(path, resolve))
  return {
    async [Symbol.asyncDispose]() {
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
