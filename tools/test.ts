/**
 * `./hako test`: the ground checks, then every ring, with a line for each and one for all.
 *
 * The files of all rings run side by side: while one waits for a guest, others compute. Those that take longest begin
 * first, so that no processor is idle because of one that began last.
 *
 * A ring that ran nothing fails, and so does a test that skipped itself: a test that cannot run here has to
 * say what is missing. A test file outside every ring fails too, because nobody would notice it never runs.
 */
import { spawn } from 'node:child_process'
import { globSync, readFileSync, statSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join, relative } from 'node:path'
import { run } from 'node:test'
import { inspect, parseArgs } from 'node:util'
import { nodeFlags } from '#base/node-flags.ts'

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
  readonly timeoutMs: number
}

interface Score {
  readonly passed: number
  readonly failures: readonly Failure[]
}

/** Of a ring while it runs. */
interface Tally {
  passed: number
  readonly failures: Failure[]
  readonly tookMs: Map<string, number>
}

interface Failure {
  readonly ring: string
  /** `src/host/qemu/qmp.test.ts: a late reply is dropped` */
  readonly name: string
  readonly text: string
}

const slowFileMs = 10_000
const slowestShown = 8

/** Half of the time of a test is waiting for somebody to end or to answer. */
const filesAtOnce = 2 * availableParallelism()

const rings: readonly Ring[] = [
  ring('unit', ['src/**/*.test.ts', 'tools/**/*.test.ts'], 300_000),
  ring('contract', ['test/contract/**/*.test.ts'], 600_000),
  ring('guest', ['test/guest/**/*.test.ts'], 600_000),
  ring('lab', ['test/lab/**/*.test.ts'], 900_000),
]
const ringNames = ['check', ...rings.map(({ name }) => name)]

function ring(name: string, patterns: readonly string[], timeoutMs: number): Ring {
  return { name, files: globSync([...patterns], { cwd: root }).toSorted(), timeoutMs }
}

async function testAll(wanted: readonly string[], grep: string | undefined): Promise<number> {
  const started = performance.now()
  const chosen = chosenRings(wanted)
  if (!chosen) return 2
  const stop = new AbortController()
  process.once('SIGINT', () => stop.abort())
  const scores: Score[] = []
  if (wanted.length === 0 ? grep === undefined : wanted.includes('check')) scores.push(await checkGround())
  scores.push(...(await runRings(chosen, grep, stop.signal)))
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

/** Runs the files of all of them, `filesAtOnce` at a time. */
async function runRings(chosen: readonly Ring[], grep: string | undefined, signal: AbortSignal): Promise<Score[]> {
  const tallies = chosen.map((): Tally => ({ passed: 0, failures: [], tookMs: new Map() }))
  const waiting = chosen.toReversed().flatMap((one) => longestFirst(one.files).map((file) => ({ one, file })))
  const lane = async () => {
    for (let next = waiting.shift(); next && !signal.aborted; next = waiting.shift()) {
      const { one, file } = next
      const tally = tallies[chosen.indexOf(one)] as Tally
      await runFile(one, file, tally, { grep, signal })
      if (tally.tookMs.size === one.files.length) closeRing(one, tally, grep)
    }
  }
  for (const [at, one] of chosen.entries()) if (one.files.length === 0) closeRing(one, tallies[at] as Tally, grep)
  await Promise.all(Array.from({ length: filesAtOnce }, lane))
  return tallies
}

/** A guess: what has more to say takes longer. */
function longestFirst(files: readonly string[]): readonly string[] {
  const bytes = new Map(files.map((file) => [file, statSync(join(root, file)).size]))
  return files.toSorted((a, b) => (bytes.get(b) ?? 0) - (bytes.get(a) ?? 0))
}

interface How {
  readonly grep: string | undefined
  readonly signal: AbortSignal
}

async function runFile({ name, timeoutMs }: Ring, file: string, tally: Tally, { grep, signal }: How): Promise<void> {
  const started = performance.now()
  const fail = (what: string, text: string) => {
    tally.failures.push({ ring: name, name: `${file}: ${what}`, text })
    console.log(`  ✗ ${file}: ${what}`)
  }
  const events = run({
    files: [join(root, file)],
    timeout: timeoutMs,
    signal,
    execArgv: [...nodeFlags],
    ...(grep === undefined ? {} : { testNamePatterns: new RegExp(grep) }),
  })
  // What a test process printed is kept until the file failed: then it may explain why.
  let printed = ''
  for await (const { type, data } of events) {
    // A diagnosis is all there is to say of a failure outside any test, such as a file left to the collector.
    if (type === 'test:stderr' || type === 'test:stdout' || type === 'test:diagnostic') {
      const line = type === 'test:diagnostic' ? `${data.message}\n` : data.message
      if (data.file !== undefined) printed = (printed + line).slice(-4_000)
    }
    if (type !== 'test:pass' && type !== 'test:fail') continue
    if (data.details.type === 'suite') continue
    // Without a test of its own a file is reported as one.
    const isFile = data.nesting === 0 && relative(root, data.name) === file
    if (type === 'test:fail') fail(data.name, explain(data.details.error, isFile ? printed : ''))
    else if (isFile && grep === undefined) fail('has no test', 'A test file without a test proves nothing.')
    else if (data.skip !== undefined && grep === undefined)
      fail(data.name, `It was skipped (${String(data.skip)}). A test that cannot run here fails, and says why.`)
    else if (!isFile && data.skip === undefined) tally.passed += 1
  }
  tally.tookMs.set(file, performance.now() - started)
}

function closeRing({ name }: Ring, { passed, failures, tookMs }: Tally, grep: string | undefined): void {
  if (passed + failures.length === 0 && grep === undefined)
    failures.push({ ring: name, name: 'the ring ran no test', text: 'A ring without tests proves nothing.' })
  const ms = tookMs.values().reduce((sum, one) => sum + one, 0)
  report(name, passed, failures.length, ms)
  reportSlowest(tookMs)
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
  report('check', names.length - failures.length, failures.length, performance.now() - started)
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

/** @param ms what its files took, one after another */
function report(name: string, passed: number, failed: number, ms: number): void {
  console.log(`${name}: ${passed} passed, ${failed} failed (${seconds(ms)})`)
}

/** Where a ring's time goes, so that it is seen when a file takes more than its share. */
function reportSlowest(took: ReadonlyMap<string, number>): void {
  const slow = [...took].filter(([, ms]) => ms >= slowFileMs).toSorted(([, a], [, b]) => b - a)
  for (const [file, ms] of slow.slice(0, slowestShown)) console.log(`  ${seconds(ms).padStart(8)}  ${file}`)
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
