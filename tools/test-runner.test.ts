/** The runner is what says "all is well", so it is tried on trees where all is not. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test, type TestContext } from 'node:test'

const good = "import { test } from 'node:test'\ntest('it holds', () => {})\n"
const everyRing = {
  'src/a.test.ts': good,
  'test/contract/b.test.ts': good,
  'test/guest/c.test.ts': good,
  'test/lab/d.test.ts': good,
}

function runOn(t: TestContext, files: Readonly<Record<string, string>>, ...args: string[]) {
  const root = mkdtempSync(join(tmpdir(), 'hako-runner-'))
  t.after(() => rmSync(root, { recursive: true }))
  const scripts = { types: 'true', lint: 'true', format: 'true' }
  for (const [name, text] of Object.entries({ 'package.json': JSON.stringify({ scripts }), ...files })) {
    mkdirSync(dirname(join(root, name)), { recursive: true })
    writeFileSync(join(root, name), text)
  }
  // Inside a test the runner would take itself for a test file.
  const { NODE_TEST_CONTEXT: _, ...env } = process.env
  const argv = [join(import.meta.dirname, 'test.ts'), '--root', root, ...args]
  const { status, stdout, stderr } = spawnSync(process.execPath, argv, { env, encoding: 'utf8', timeout: 60_000 })
  return { status, text: stdout + stderr, lines: stdout.split('\n') }
}

test('a tree where every ring passes ends with a line of sums and code 0', (t) => {
  const { status, lines, text } = runOn(t, everyRing)
  assert.equal(status, 0, text)
  assert.equal(lines.at(-2), '7 passed, 0 failed')
  for (const name of ['check: 3', 'unit: 1', 'contract: 1', 'guest: 1', 'lab: 1'])
    assert.ok(
      lines.some((line) => line.startsWith(`${name} passed, 0 failed`)),
      `${name} in\n${text}`,
    )
})

test('an assertion that fails is shown with its words, and the code is 1', (t) => {
  const bad =
    "import assert from 'node:assert'\nimport { test } from 'node:test'\ntest('water is dry', () => assert.equal('wet', 'dry'))\n"
  const { status, lines, text } = runOn(t, { ...everyRing, 'test/guest/c.test.ts': bad })
  assert.equal(status, 1)
  assert.equal(lines.at(-2), '6 passed, 1 failed')
  assert.match(text, /guest: 0 passed, 1 failed/)
  assert.match(text, /test\/guest\/c\.test\.ts: water is dry\n.*'wet'/s)
})

test('a file that dies before its tests fails with what it printed', (t) => {
  const { status, text } = runOn(t, {
    ...everyRing,
    'src/a.test.ts': "console.error('no such tool')\nprocess.exit(3)\n",
  })
  assert.equal(status, 1)
  assert.match(text, /unit: 0 passed, 1 failed/)
  assert.match(text, /no such tool/)
})

test('a ring without tests, a file without tests, a skipped test and a file outside the rings all fail', (t) => {
  const skips = "import { test } from 'node:test'\ntest('maybe', { skip: 'no tool' }, () => {})\n"
  const { status, text } = runOn(t, {
    'src/a.test.ts': 'export {}\n',
    'test/contract/b.test.ts': skips,
    'test/guest/c.test.ts': good,
    'test/elsewhere/e.test.ts': good,
  })
  assert.equal(status, 1)
  assert.match(text, /src\/a\.test\.ts: has no test/)
  assert.match(text, /maybe\n.*It was skipped \(no tool\)/)
  assert.match(text, /lab the ring ran no test/)
  assert.match(text, /test\/elsewhere\/e\.test\.ts belongs to no ring/)
})

test('a ground check that fails is a failure with its output', (t) => {
  const scripts = { types: 'echo wrong type; false', lint: 'true', format: 'true' }
  const { status, text } = runOn(t, { ...everyRing, 'package.json': JSON.stringify({ scripts }) })
  assert.equal(status, 1)
  assert.match(text, /check: 2 passed, 1 failed/)
  assert.match(text, /npm run types\n\s+wrong type/)
})

test('rings and files can be chosen; an unknown name is refused', (t) => {
  const one = runOn(t, everyRing, 'guest', 'src/a.test.ts')
  assert.equal(one.status, 0, one.text)
  assert.equal(one.lines.at(-2), '2 passed, 0 failed')
  assert.equal(runOn(t, everyRing, 'gust').status, 2)
  assert.equal(runOn(t, everyRing, '--grep', 'it holds').status, 0)
  assert.equal(runOn(t, everyRing, '--grep', 'no such title').status, 1)
})

test('a file that fails after its tests passed is told with the reason', (t) => {
  const late = `${good}test('first', () => { setTimeout(() => { throw new Error('late news') }, 50) })\ntest('then', () => new Promise((resolve) => setTimeout(resolve, 300)))\n`
  const { status, text } = runOn(t, { ...everyRing, 'src/a.test.ts': late })
  assert.equal(status, 1)
  assert.match(text, /src\/a\.test\.ts/)
  assert.match(text, /late news/)
})
