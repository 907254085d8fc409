import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { waitFor } from '#base/clock.ts'
import { isFault } from '#base/fault.ts'
import { machine, spawnDetached } from './exec.ts'
import { endProcess, startTimeOf } from './programs/proc.ts'

const { run } = machine()

test('a program gets its words untouched, its input, and nothing of this environment', async () => {
  process.env.HK_SECRET = 'leak'
  try {
    const { stdout } = await run(['sh', '-c', 'printf "%s|" "$@"; cat; env', 'sh', 'a b', '$HOME', '"'], {
      input: 'in\n',
      env: { X: '1' },
    })
    assert.ok(stdout.startsWith('a b|$HOME|"|in\n'))
    assert.match(stdout, /^X=1$/m)
    assert.doesNotMatch(stdout, /leak/)
  } finally {
    delete process.env.HK_SECRET
  }
})

test('another exit code is a fault with the last line of what it said, unless it is an answer', async () => {
  const argv = ['sh', '-c', 'echo first >&2; echo the reason >&2; exit 3'] as const
  await assert.rejects(
    run(argv),
    (error) => isFault(error, 'failed') && error.message === 'sh failed with exit code 3: the reason',
  )
  assert.equal((await run(argv, { okCodes: [3] })).code, 3)
})

test('a program that is not installed is missing', async () => {
  await assert.rejects(
    run(['hk-no-such-program']),
    (error) => isFault(error, 'missing') && /hk-no-such-program/.test(error.message),
  )
})

test('a program that takes too long is ended, also when its children hold its output open', async () => {
  const started = performance.now()
  const pids: number[] = []
  const onLine = (line: string) => pids.push(Number(line))
  await assert.rejects(run(['sh', '-c', 'sleep 600 & echo $!; wait'], { timeoutMs: 2_000, onLine }), (error) =>
    isFault(error, 'timeout'),
  )
  assert.ok(performance.now() - started < 10_000)
  for (const pid of pids) await endProcess(pid, await startTimeOf(pid), { graceMs: 0 })
  assert.equal(pids.length, 1)
})

test('an abort ends the program', async () => {
  const stop = new AbortController()
  const running = run(['sleep', '600'], { signal: stop.signal })
  stop.abort()
  await assert.rejects(running, (error) => isFault(error, 'aborted'))
  await assert.rejects(run(['true'], { signal: stop.signal }), (error) => isFault(error, 'aborted'))
})

test('a program that prints without end is ended', async () => {
  await assert.rejects(run(['yes'], { outputBytes: 100_000 }), (error) => isFault(error, 'exhausted'))
})

test('lines arrive whole, the last one too, and no character is cut in two', async () => {
  const lines: string[] = []
  const script = 'printf "a\\xc3"; sleep 0.05; printf "\\xa4b\\nend"'
  await run(['bash', '-c', script], { onLine: (line) => lines.push(line) })
  assert.deepEqual(lines, ['aäb', 'end'])
})

test('a detached program runs in a session of its own and writes to its file', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'hk-exec-'))
  try {
    const outputFile = join(directory, 'log')
    const pid = await spawnDetached(['sh', '-c', 'echo said; exec sleep 600'], { outputFile })
    try {
      await waitFor(async () => (await readFile(outputFile, 'utf8')) === 'said\n', {
        what: 'its output',
        timeoutMs: 60_000,
      })
      const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
      assert.equal(Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[3]), pid, 'it leads its session')
    } finally {
      await endProcess(pid, await startTimeOf(pid), { graceMs: 0 })
    }
    await assert.rejects(spawnDetached(['hk-no-such-program'], { outputFile }), (error) => isFault(error, 'missing'))
  } finally {
    await rm(directory, { recursive: true })
  }
})
