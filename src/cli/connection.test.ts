/** The command line's wire, against a real socket. */
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { Fault, isFault } from '#base/fault.ts'
import { MiB } from '#base/bytes.ts'
import { demoNode } from '../../test/contract/demo.ts'
import { connectionTo } from './connection.ts'
import { measureFor } from './text-width.ts'

const noNode = (path: string) => new Fault('unavailable', `nobody at ${path}`)

test('what is given once is a value, what is given twice a list', async () => {
  await using node = await demoNode()
  const { call } = connectionTo(dirname(node.apiSocket), noNode)
  assert.deepEqual((await call('PUT', '/echo/a', { text: ['x y'], count: '3', flag: '1', list: ['p', 'q'] })).data, {
    id: 'a',
    text: 'x y',
    count: 3,
    flag: 1,
    list: ['p', 'q'],
  })
  assert.deepEqual((await call('PUT', '/echo/a', { list: ['p'] })).data, { id: 'a', list: ['p'] })
})

test('where no node answers, its own word is said', async () => {
  const { call } = connectionTo('/nonexistent', noNode)
  await assert.rejects(call('GET', '/version'), /nobody at \/nonexistent\/api.sock/)
})

test('a path or header that is none is refused before it is sent', async () => {
  await using node = await demoNode()
  const { call } = connectionTo(dirname(node.apiSocket), noNode)
  for (const path of ['/version HTTP/1.1\r\nX: y', '/ä', '/a b'])
    await assert.rejects(call('GET', path), (error) => isFault(error, 'invalid'))
})

test('Ctrl-C ends a call', async () => {
  const dispatcher = {
    handle: () => new Promise<never>(() => {}),
    mayUpload: () => new Promise<never>(() => {}),
    isStreamed: () => false,
  }
  await using node = await demoNode({ changes: { dispatcher } })
  const stop = new AbortController()
  const waiting = connectionTo(dirname(node.apiSocket), noNode).call('GET', '/version', {}, { signal: stop.signal })
  setImmediate(() => stop.abort())
  await assert.rejects(waiting, (error) => isFault(error, 'aborted'))
})

test('a file arrives whole, large or empty; one that is not there is named', async () => {
  await using undo = new AsyncDisposableStack()
  const node = undo.use(await demoNode())
  const directory = await mkdtemp(join(tmpdir(), 'hako-cli-'))
  undo.defer(() => rm(directory, { recursive: true, force: true }))
  const file = join(directory, 'a "b".iso')
  const { call } = connectionTo(dirname(node.apiSocket), noNode)
  const path = '/nodes/demo/storage/local/upload'
  const send = (params: Record<string, string>) => call('POST', path, { content: 'iso', ...params }, { isUpload: true })
  for (const sizeBytes of [0, 1, 3 * MiB + 1]) {
    await writeFile(file, '')
    await truncate(file, sizeBytes)
    const { tmpfilename } = (await send({ filename: file })).data as { tmpfilename: string }
    assert.deepEqual(await readFile(tmpfilename), await readFile(file))
  }
  await assert.rejects(
    send({ filename: join(directory, 'none') }),
    (error) => isFault(error, 'missing') && error.message.endsWith("none' does not exist"),
  )
  await assert.rejects(send({ filename: directory }), (error) => isFault(error, 'invalid'))
})

test('who may not upload hears it before a large file has been sent', async () => {
  await using undo = new AsyncDisposableStack()
  const node = undo.use(await demoNode({ uid: 4242 }))
  const directory = await mkdtemp(join(tmpdir(), 'hako-cli-'))
  undo.defer(() => rm(directory, { recursive: true, force: true }))
  const file = join(directory, 'large.iso')
  await writeFile(file, '')
  await truncate(file, 200 * MiB)
  const { call } = connectionTo(dirname(node.apiSocket), noNode)
  const params = { content: 'iso', filename: file }
  await assert.rejects(call('POST', '/nodes/demo/storage/local/upload', params, { isUpload: true }), (error) =>
    isFault(error, 'unauthenticated'),
  )
})

test('plain text is measured as all text is', async () => {
  const texts = ['', 'web-1', 'a b~!']
  const [plain, any] = [await measureFor(texts), await measureFor([...texts, '日本'])]
  for (const text of texts) assert.equal(plain(text), any(text))
  assert.equal(any('日本'), 4)
})
