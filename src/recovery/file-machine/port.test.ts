/** A machine that reads hostile disks may be hostile itself: nothing it says costs more than that one answer. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { entriesIn } from './entry.ts'
import { FilePort } from './port.ts'

/** A port whose machine answers each line with what `answer` makes of it. */
async function portTo(answer: (line: string, socket: Socket) => void) {
  const place = await mkdtemp(join(tmpdir(), 'hako-port-'))
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.on('data', (bytes) => answer(bytes.toString().trim(), socket))
  })
  server.listen(join(place, 'port.sock'))
  await once(server, 'listening')
  const listener = { pid: process.pid, uid: process.getuid?.() ?? 0 }
  const port = await FilePort.connect(join(place, 'port.sock'), listener, 300)
  return {
    port,
    async [Symbol.asyncDispose]() {
      port.close()
      server.close()
      await rm(place, { recursive: true })
    },
  }
}

async function all(parts: AsyncIterable<Buffer>): Promise<Buffer> {
  const found: Buffer[] = []
  for await (const part of parts) found.push(part)
  return Buffer.concat(found)
}

test('answers come whole, one after the other; a refusal is told and costs nothing', async () => {
  const content = randomBytes(100_000)
  await using made = await portTo((line, socket) => {
    const [id, question] = line.split(' ')
    if (question === 'stat') return void socket.write(`#${id}\n.1 no such entry\u0007\n`)
    const lines = content.toString('base64').match(/.{1,4096}/g) ?? []
    for (const one of [`#${id}`, ...lines, '.0']) socket.write(`${one}\n`)
  })
  const { port } = made
  assert.ok((await all(port.ask('read', 'disk0', 'raw', '2f'))).equals(content))
  await assert.rejects(all(port.ask('stat', 'disk0', 'raw', '2f')), (fault) => {
    return isFault(fault, 'invalid') && fault.message === 'no such entry?'
  })
  assert.ok((await all(port.ask('read', 'disk0', 'raw', '2f'))).equals(content))
})

const lies: Readonly<Record<string, (id: string) => string>> = {
  'answers another question': () => '#77\n.0\n',
  'says a line without end': (id) => `#${id}\n${'A'.repeat(300_000)}`,
  'says what is no base64': (id) => `#${id}\nAAA\u0000\n.0\n`,
  'says nothing more': (id) => `#${id}\nAAAA\n`,
}
for (const [how, said] of Object.entries(lies)) {
  test(`a machine that ${how} is not listened to any more`, async () => {
    await using made = await portTo((line, socket) => void socket.write(said(line.split(' ')[0] ?? '')))
    await assert.rejects(all(made.port.ask('list', 'disk0', 'raw', '2f')), isFault)
    assert.ok(made.port.isGone)
  })
}

test('who does not want the rest of an answer does not get it in the next one', async () => {
  await using made = await portTo((line, socket) => void socket.write(`#${line.split(' ')[0]}\nAAAA\nAAAA\n.0\n`))
  for await (const _part of made.port.ask('read', 'disk0', 'raw', '2f')) break
  assert.ok(made.port.isGone)
})

test('names may hold what they like; a path that leads elsewhere, or facts that cannot be, are refused', async () => {
  const read = async (text: string) => {
    const cut = Math.floor(text.length / 2)
    const found = []
    for await (const entry of entriesIn(
      (async function* () {
        yield Buffer.from(text.slice(0, cut), 'latin1')
        yield Buffer.from(text.slice(cut), 'latin1')
      })(),
    ))
      found.push(entry)
    return found
  }
  const facts = 'f 644 0 7 5 -1.5000000000 1:2'
  const [entry] = await read(`${facts}\0two\nlines\xff\0\0`)
  assert.deepEqual(entry, {
    path: 'two\nlines\xff',
    kind: 'file',
    mode: 0o644,
    uid: 0,
    gid: 7,
    sizeBytes: 5,
    modified: { seconds: -1, nanoseconds: 500_000_000 },
  })
  assert.equal((await read('l 777 0 0 3 1 1:2\0link\0/etc\0'))[0]?.target, '/etc')
  const odd = ['../up', 'a//b', '/etc', 'a/./b', 'x'.repeat(2_000)].map((path) => `${facts}\0${path}\0\0`)
  odd.push('f 644 0 0 99999999999999999999 1 1:2\0a\0\0', 'no facts\0a\0\0', `${facts}\0cut off`, 'x'.repeat(40_000))
  for (const text of odd) await assert.rejects(read(text), isFault, text.slice(0, 60))
})
