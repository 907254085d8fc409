/**
 * `./hako test`: the ground checks, then ring after ring, with a line for each and one for all.
 *
 * A ring that ran nothing fails, and so does a test that skipped itself: a test that cannot run here has to
 * say what is missing. A test file outside every ring fails too, because nobody would notice it never runs.
 */
import { spawn } from 'node:child_process'
import { globSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join, relative } from 'node:path'
import { run } from 'node:test'
import { inspect, parseArgs } from 'node:util'

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    grep: { type: 'string' },
    // Another tree than this one, for the test of this file.
    root: { type: 'string', default: join(import.meta.dirname, '..') },
    help: { type: 'boolean', short: 'h' },
  },
})
const root = values.root

interface Ring {
  readonly name: string
  readonly files: readonly string[]
  /** Test files at a time. */
  readonly concurrency: number
  readonly timeoutMs: number
}

interface Score {
  readonly passed: number
  readonly failures: readonly Failure[]
}

interface Failure {
  readonly ring: string
  /** `src/host/qemu/qmp.test.ts: a late reply is dropped` */
  readonly name: string
  readonly text: string
}

const slowFileMs = 10_000
const slowestShown = 8

/** One file more than there are processors: most of the time of a test is waiting for somebody to end or to answer. */
const filesAtOnce = availableParallelism() + 1

const rings: readonly Ring[] = [
  ring('unit', ['src/**/*.test.ts', 'tools/**/*.test.ts'], filesAtOnce, 300_000),
  ring('contract', ['test/contract/**/*.test.ts'], filesAtOnce, 600_000),
  ring('guest', ['test/guest/**/*.test.ts'], filesAtOnce, 600_000),
  ring('lab', ['test/lab/**/*.test.ts'], 1, 900_000),
]
const ringNames = ['check', ...rings.map(({ name }) => name)]

function ring(name: string, patterns: readonly string[], concurrency: number, timeoutMs: number): Ring {
  return { name, files: globSync([...patterns], { cwd: root }).toSorted(), concurrency, timeoutMs }
}

async function testAll(wanted: readonly string[], grep: string | undefined): Promise<number> {
  const started = performance.now()
  const chosen = chosenRings(wanted)
  if (!chosen) return 2
  const stop = new AbortController()
  process.once('SIGINT', () => stop.abort())
  const scores: Score[] = []
  if (wanted.length === 0 ? grep === undefined : wanted.includes('check')) scores.push(await checkGround())
  for (const one of chosen) {
    if (!stop.signal.aborted) scores.push(await runRing(one, grep, stop.signal))
  }
  if (wanted.length === 0) scores.push({ passed: 0, failures: strayFiles() })
  return summary(scores, performance.now() - started)
}

/** Rings by name; single files keep the ring they belong to. */
function chosenRings(wanted: readonly string[]): readonly Ring[] | undefined {
  const files = new Set(wanted.filter((word) => word.endsWith('.test.ts')).map((path) => relative(root, path)))
  const unknown = wanted.filter((word) => !word.endsWith('.test.ts') && !ringNames.includes(word))
  const strange = [...files].filter((file) => !rings.some((one) => one.files.includes(file)))
  if (unknown.length + strange.length > 0) {
    console.error(`hako test: there is no ring or test file '${[...unknown, ...strange].join("', '")}'`)
    console.error(`Rings: ${ringNames.join(', ')}.`)
    return undefined
  }
  if (wanted.length === 0) return rings
  return rings.flatMap((one) => {
    if (wanted.includes(one.name)) return one
    const some = one.files.filter((file) => files.has(file))
    return some.length > 0 ? { ...one, files: some } : []
  })
}

async function runRing(one: Ring, grep: string | undefined, signal: AbortSignal): Promise<Score> {
  const started = performance.now()
  const failures: Failure[] = []
  let passed = 0
  const fail = (file: string, name: string, text: string) => {
    failures.push({ ring: one.name, name: `${relative(root, file)}: ${name}`, text })
    console.log(`  ✗ ${relative(root, file)}: ${name}`)
  }
  const events = run({
    files: one.files.map((file) => join(root, file)),
    concurrency: one.concurrency,
    timeout: one.timeoutMs,
    signal,
    execArgv: ['--disable-warning=ExperimentalWarning'],
    ...(grep === undefined ? {} : { testNamePatterns: new RegExp(grep) }),
  })
  // What a test process printed is kept until the file failed: then it may explain why.
  const printed = new Map<string, string>()
  const took = new Map<string, number>()
  for await (const { type, data } of events) {
    // A diagnosis is all there is to say of a failure outside any test, such as a file left to the collector.
    if (type === 'test:stderr' || type === 'test:stdout' || type === 'test:diagnostic') {
      const line = type === 'test:diagnostic' ? `${data.message}\n` : data.message
      if (data.file !== undefined) printed.set(data.file, ((printed.get(data.file) ?? '') + line).slice(-4_000))
    }
    if (type !== 'test:pass' && type !== 'test:fail') continue
    const file = data.file ?? data.name
    if (data.nesting === 0) took.set(file, (took.get(file) ?? 0) + data.details.duration_ms)
    if (data.details.type === 'suite') continue
    // Without a test of its own a file is reported as one.
    const isFile = data.nesting === 0 && join(root, relative(root, data.name)) === file
    if (type === 'test:fail') fail(file, data.name, explain(data.details.error, isFile ? printed.get(file) : ''))
    else if (isFile && grep === undefined) fail(file, 'has no test', 'A test file without a test proves nothing.')
    else if (data.skip !== undefined && grep === undefined)
      fail(file, data.name, `It was skipped (${String(data.skip)}). A test that cannot run here fails, and says why.`)
    else if (!isFile && data.skip === undefined) passed += 1
  }
  if (passed + failures.length === 0 && grep === undefined)
    failures.push({ ring: one.name, name: 'the ring ran no test', text: 'A ring without tests proves nothing.' })
  report(one.name, passed, failures.length, started)
  reportSlowest(took)
  return { passed, failures }
}

/** The assertion's own words, without the runner's frames. */
function explain(error: Error, printed = ''): string {
  const cause = error.cause instanceof Error ? error.cause : error
  const stack = (cause.stack ?? cause.message)
    .split('\n')
    .filter((line) => !/^\s+at .*node:internal|^\s+at .*node:test/.test(line))
    .join('\n')
  // What a program said when it failed is behind the fault that tells of it.
  const behind = cause.cause === undefined ? '' : `\nbecause of ${inspect(cause.cause, { depth: 3 }).slice(0, 2_000)}`
  return printed === '' ? stack + behind : `${stack}${behind}\n${printed}`
}

/** Types, lint and format, as package.json has them, without npm: it may be older than this Node. */
async function checkGround(): Promise<Score> {
  const started = performance.now()
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Record<string, string> }
  const failures: Failure[] = []
  const names = ['types', 'lint', 'format']
  for (const name of names) {
    const { code, text } = await shell(scripts[name] ?? 'false')
    if (code !== 0) failures.push({ ring: 'check', name: `npm run ${name}`, text })
  }
  report('check', names.length - failures.length, failures.length, started)
  return { passed: names.length - failures.length, failures }
}

function shell(command: string): Promise<{ code: number | null; text: string }> {
  const path = `${join(import.meta.dirname, '../node_modules/.bin')}:${process.env.PATH ?? ''}`
  const child = spawn('sh', ['-c', command], { env: { ...process.env, PATH: path } })
  let text = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (part: Buffer) => (text += part.toString('utf8')))
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, text })))
}

function strayFiles(): Failure[] {
  const known = new Set(rings.flatMap(({ files }) => files))
  return globSync(['test/**/*.test.ts', 'bench/**/*.test.ts'], { cwd: root })
    .filter((file) => !known.has(file))
    .map((file) => ({
      ring: 'none',
      name: `${file} belongs to no ring`,
      text: 'Move it, or add its ring to tools/test.ts.',
    }))
}

function report(name: string, passed: number, failed: number, started: number): void {
  console.log(`${name}: ${passed} passed, ${failed} failed (${seconds(performance.now() - started)})`)
}

/** Where a ring's time goes, so that it is seen when a file takes more than its share. */
function reportSlowest(took: ReadonlyMap<string, number>): void {
  const slow = [...took].filter(([, ms]) => ms >= slowFileMs).toSorted(([, a], [, b]) => b - a)
  for (const [file, ms] of slow.slice(0, slowestShown))
    console.log(`  ${seconds(ms).padStart(8)}  ${relative(root, file)}`)
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`
}

function summary(scores: readonly Score[], ms: number): number {
  const failures = scores.flatMap((score) => score.failures)
  const passed = scores.reduce((sum, score) => sum + score.passed, 0)
  for (const { ring: where, name, text } of failures)
    console.log(`\n✗ ${where} ${name}\n${text.replace(/^/gm, '    ').trimEnd()}`)
  console.log(`\nin ${seconds(ms)}`)
  console.log(`${passed} passed, ${failures.length} failed`)
  return failures.length > 0 || passed === 0 ? 1 : 0
}

process.chdir(root)
// Hundreds of processes load the same sources: the first one's work is kept for the others.
process.env.NODE_COMPILE_CACHE ??= join(import.meta.dirname, '../node_modules/.cache/hakobune/tests')
if (values.help) {
  console.log(
    `hako test [${ringNames.join(' | ')} | FILE.test.ts]… [--grep PATTERN]\n\nWithout a ring: all of them, in this order.`,
  )
} else process.exitCode = await testAll(positionals, values.grep)
