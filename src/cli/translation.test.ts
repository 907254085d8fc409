import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { offlineCommands } from '#commands.ts'
import { withOwnOptions } from './built-in.ts'
import descriptions from './japanese/descriptions.json' with { type: 'json' }
import sentences from './japanese/sentences.json' with { type: 'json' }
import { translation } from './translation.ts'

const sources = join(import.meta.dirname, '..')
const commands = offlineCommands('lab').commands.map(withOwnOptions)

/** Everything help shows that the command line did not write itself. */
const described = new Set([
  ...commands.map(({ description }) => description),
  ...commands
    .flatMap(({ options }) => Object.values(options))
    .flatMap(({ description, isListed }) => (isListed === false || description === undefined ? [] : [description])),
])

/** What is to be done next, wherever it is written, the complaints of the command line itself, and what the diagram says. */
const said = saidIn(sources)

test('every description and every sentence that help or a failure shows is there in Japanese, and nothing else is', () => {
  const known = new Set(Object.keys(descriptions))
  assert.deepEqual([...described].filter((text) => !known.has(text)).toSorted(), [], 'add to descriptions.json')
  assert.deepEqual([...known].filter((text) => !described.has(text)).toSorted(), [], 'shown by no help any more')
  const translated = new Set([...Object.keys(sentences.remedies), ...Object.keys(sentences.messages)])
  assert.deepEqual([...said].filter((text) => !translated.has(text)).toSorted(), [], 'add to sentences.json')
  assert.deepEqual([...translated].filter((text) => !said.has(text)).toSorted(), [], 'said nowhere any more')
})

test('what the engine complains of by itself is told in Japanese as it says it', () => {
  const engine = saidBy('datastore', 'host/files.ts')
  assert.deepEqual(
    Object.keys(sentences.engine).filter((text) => !engine.has(text)),
    [],
    'said nowhere any more',
  )
})

test('every sentence a run writes into a plan, and every one about a wrong plan, is there in Japanese, and nothing else is', () => {
  const all = saidOfPlans()
  const elsewhere = new Set([...Object.keys(sentences.remedies), ...Object.keys(sentences.messages)])
  const translated = new Set(Object.keys(sentences.plans))
  const isSaid = (text: string) =>
    text.includes(' ') && isSentence(text.replaceAll(/\{\d\}/g, '')) && !elsewhere.has(text)
  assert.deepEqual(
    [...all].filter((text) => isSaid(text) && !translated.has(text)).toSorted(),
    [],
    'add to sentences.json',
  )
  assert.deepEqual([...translated].filter((text) => !all.has(text)).toSorted(), [], 'said nowhere any more')
})

test('a sentence within another is told in Japanese, too, and what nobody knows stays as it was said', async () => {
  const japanese = await translation('ja')
  assert.equal(
    japanese('its task had failed: not within the time of the step: status: expected is running, found nothing'),
    'タスクが失敗していました: 手順の制限時間内に終わりませんでした: status: 期待は is running、実際は値なし',
  )
  assert.equal(
    japanese("Parameter verification failed. a: '../x' cannot be a part of a path"),
    "パラメーターに誤りがあります。 a: '../x' はパスの一部になれません",
  )
  assert.equal(japanese('undo: VM 100 not running'), '取り消し: VM 100 not running')
})

test('what differs from one time to the next is in both languages', () => {
  for (const [english, japanese] of Object.values(sentences).flatMap((group) => Object.entries(group))) {
    const places = (text: string) => [...new Set(text.match(/\{\d\}/g))].toSorted()
    assert.deepEqual(places(japanese), places(english), english)
    assert.match(japanese, /\p{Script=Han}|\p{Script=Hiragana}|\p{Script=Katakana}/u)
  }
})

test('a reader of Japanese is told in Japanese, with what differs in its place, and anybody else as it was written', async () => {
  const japanese = await translation('ja')
  assert.equal(japanese('Start a virtual machine.'), '仮想マシンを起動する。')
  assert.equal(
    japanese('Detach it first: `hako vm set 100 --delete scsi1`.'),
    '先に外してください: `hako vm set 100 --delete scsi1`',
  )
  assert.equal(
    japanese("'a b' is too much: this command takes no plain argument"),
    "'a b' は余分です: このコマンドは引数を取りません",
  )
  assert.equal(japanese("VM 100 already exists on node 'lab'"), "VM 100 already exists on node 'lab'")
  assert.equal((await translation('en'))('Start a virtual machine.'), 'Start a virtual machine.')
})

/** Every text in what runs plans: it lands in documents, or is shown where a plan is wrong. */
function saidOfPlans(): Set<string> {
  const own = ['lint', 'small-node', 'section', 'skeleton', 'outcome', 'named-files', 'service']
  const plans = readdirSync(join(sources, 'plans')).filter(
    (file) => !own.includes(file.replace(/(?:\.test)?\.ts$/, '')),
  )
  const files = ['begin.ts', 'lab.ts', 'perform-plan.ts', 'run-plan.ts'].map((file) => `operations/plans/${file}`)
  const found = new Set<string>()
  for (const file of [...plans.filter((name) => !name.endsWith('.test.ts')).map((name) => `plans/${name}`), ...files]) {
    const source = readFileSync(join(sources, file), 'utf8')
      .replaceAll(/\/\*[^]*?\*\/|^\s*\/\/.*$|^(?:import|\} from) .*$|new Error\(.*$/gm, '')
      .replaceAll(/metadata\.get\('.*'\)|'plan id'/g, '')
    for (let at = 0; at < source.length; at += 1) {
      if (!'\'"`'.includes(source[at] ?? ' ')) continue
      const { text, end } = literal(source, at, '')
      found.add(text)
      at = end
    }
  }
  return found
}

/** Faults of a folder of the sources and of one more file, what is wrong with a field, and what is not there. */
function saidBy(folder: string, more: string): Set<string> {
  const found = new Set<string>()
  const files = readdirSync(join(sources, folder), { recursive: true, encoding: 'utf8' })
  for (const file of [...files.map((name) => join(folder, name)), more]) {
    if (!file.endsWith('.ts') || file.endsWith('.test.ts')) continue
    const source = readFileSync(join(sources, file), 'utf8')
    for (const [, what] of source.matchAll(/missing\('(\w+)'/g)) found.add(`${what} '{0}' does not exist`)
    const starts = [...source.matchAll(/new Fault\(/g)].map(({ index }) => source.indexOf(',', index) + 1)
    starts.push(
      ...[...source.matchAll(/invalid\(\{\s*'?[\w-]+'?:/g)].map(({ index, 0: match }) => index + match.length),
    )
    for (const text of starts.flatMap((at) => texts(source, at))) found.add(text)
  }
  return found
}

function saidIn(folder: string): Set<string> {
  const found = new Set<string>()
  for (const file of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('.ts') || file.endsWith('.test.ts')) continue
    const source = readFileSync(join(folder, file), 'utf8')
    const starts = [...source.matchAll(/\bremedy(?::| =)\s/g)].map(({ index, 0: match }) => index + match.length)
    if (file.startsWith('cli/')) {
      for (const { index } of source.matchAll(/new Fault\('/g)) starts.push(source.indexOf(',', index) + 1)
    }
    if (file === 'views/architecture/gather.ts' || file.startsWith('cli/diagram/')) {
      // What is said of parts in the diagram.
      for (const { index, 0: match } of source.matchAll(/\bdetail: |\bunknown\(/g)) starts.push(index + match.length)
    }
    for (const text of starts.flatMap((at) => texts(source, at))) if (isSentence(text)) found.add(text)
  }
  return found
}

/** Two words or more. How a command is written is no sentence. */
function isSentence(text: string): boolean {
  return /\p{L}{2,}\W+\p{L}{2,}/u.test(text) && !text.startsWith('hako ')
}

/** The texts of the expression that begins there, those that are added to one another as one. */
function texts(source: string, start: number): string[] {
  const found: string[] = []
  let depth = 0
  let [isAdded, isBegun] = [false, false]
  for (let at = start; at < source.length; at += 1) {
    const letter = source[at] ?? ''
    if (letter === "'" || letter === '"' || letter === '`') {
      const before = isAdded ? (found.pop() ?? '') : ''
      const { text, end } = literal(source, at, before)
      found.push(text)
      isAdded = false
      at = end
    } else if ('([{'.includes(letter)) depth += 1
    else if (')]}'.includes(letter)) depth -= 1
    else if (letter === '+') isAdded = true
    isBegun ||= letter.trim() !== ''
    const isOver =
      depth < 0 ||
      (depth === 0 && (letter === ',' || letter === ';')) ||
      (depth === 0 && letter === '\n' && isBegun && !/^\s*[?:.+]/.test(source.slice(at, at + 80)) && !isAdded)
    if (isOver) break
  }
  return found
}

/** Reads a literal; `{0}`, `{1}`, … stand for what a template fills in. */
function literal(source: string, start: number, before: string): { text: string; end: number } {
  const quote = source[start]
  let text = before
  let at = start + 1
  for (; source[at] !== quote; at += 1) {
    if (source[at] === '\\') text += source[(at += 1)]
    else if (quote === '`' && source.startsWith('${', at)) {
      text += `{${text.match(/\{\d\}/g)?.length ?? 0}}`
      at = endOfPlace(source, at + 2)
    } else text += source[at]
  }
  return { text, end: at }
}

function endOfPlace(source: string, start: number): number {
  let depth = 0
  for (let at = start; ; at += 1) {
    const letter = source[at] ?? '}'
    if (letter === "'" || letter === '"' || letter === '`') at = literal(source, at, '').end
    else if (letter === '{') depth += 1
    else if (letter === '}' && depth === 0) return at
    else if (letter === '}') depth -= 1
  }
}
