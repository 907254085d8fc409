/** The command line as a program, before a node that says what a test wants it to say. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { once } from 'node:events'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { nodeFlags } from '#base/node-flags.ts'
import { offlineCommands } from '#commands.ts'
import { compiled } from '../compiled.ts'

const program = join(import.meta.dirname, '../../src/cli/main.ts')

interface Answer {
  readonly status: number
  readonly data: unknown
}

/** Runs `hako` with a node that answers each path by the function. */
async function hako(answer: (path: string) => Answer, args: readonly string[], language = 'C') {
  await using closing = new AsyncDisposableStack()
  const runDir = await mkdtemp(join(tmpdir(), 'hako-'))
  closing.defer(() => rm(runDir, { recursive: true }))
  const server = createServer((request, reply) => {
    const { status, data } = answer(request.url ?? '')
    const body = Buffer.from(JSON.stringify({ data }))
    const head = { 'content-type': 'application/json', 'content-length': body.length }
    reply.writeHead(status, status === 401 ? 'No ticket' : 'OK', head).end(body)
  })
  closing.defer(() => void server.close())
  closing.defer(() => server.closeAllConnections())
  server.listen(join(runDir, 'api.sock'))
  await once(server, 'listening')
  const env = { ...compiled, PATH: process.env.PATH, HAKO_RUN_DIR: runDir, LANG: language }
  return await new Promise<{ code: unknown; out: string; errors: string }>((resolve) => {
    const options = { env, timeout: 30_000 }
    execFile(process.execPath, [...nodeFlags, program, ...args], options, (error, out, errors) =>
      resolve({ code: error?.code ?? 0, out, errors }),
    )
  })
}

test('a user of the machine whom the node does not know is told so, and who can change it', async () => {
  const refuse = () => ({ status: 401, data: null })
  const { username } = userInfo()
  const english = await hako(refuse, ['vm', 'list'])
  assert.equal(english.code, 4)
  assert.match(english.errors, new RegExp(`^hako: The node does not know '${username}', a user of this machine\\.`))
  assert.match(english.errors, new RegExp(`\\nNext: .*hako user create ${username}@pam`))
  const japanese = await hako(refuse, ['vm', 'list'], 'ja_JP.UTF-8')
  assert.match(japanese.errors, /ノードに登録されていません。\n次の手順: /)
})

test('the log of a task is followed to its end, and the command ends as the task', async () => {
  const upid = 'UPID:lab:00000001:00000001:00000001:vzdump:100:root@pam:'
  let polls = 0
  const answer = (path: string): Answer => {
    if (path.includes('/hako/commands')) return { status: 200, data: offlineCommands('lab') }
    const start = Number(/start=(\d+)/.exec(path)?.[1] ?? 0)
    if (path.includes('/log')) {
      const lines = ['one', 'two', 'three'].slice(0, polls).map((t, at) => ({ n: at + 1, t }))
      return { status: 200, data: lines.slice(start) }
    }
    polls += 1
    const ended = { status: 'stopped', exitstatus: 'disk full', kind: 'exhausted', remedy: 'Make room.' }
    return { status: 200, data: polls < 3 ? { status: 'running' } : ended }
  }
  for (const option of ['-f', '--follow']) {
    polls = 0
    const { code, errors } = await hako(answer, ['task', 'log', upid, option])
    assert.equal(code, 1)
    assert.equal(errors, 'one\ntwo\nthree\nhako: disk full\nNext: Make room.\n')
  }
})
