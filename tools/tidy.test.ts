/** The house keeps itself tidy: layers, sizes, names, dead files, borders. A failure says what to do. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { basename, dirname, join, normalize } from 'node:path'
import { test } from 'node:test'
import {
  bannedNames,
  commonRoots,
  compositionRoots,
  datastoreDoor,
  datastoreRooms,
  longestFile,
  mayImport,
} from './layers.ts'

const root = join(import.meta.dirname, '..')
const tracked = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\n')
  .filter((path) => path !== '' && existsSync(join(root, path)))
const sources = tracked.filter((path) => /^(src|tools|test|bench)\/.*\.ts$/.test(path))
const product = sources.filter(
  (path) => path.startsWith('src/') && !path.endsWith('.test.ts') && !path.endsWith('/conformance.ts'),
)
const text = new Map(sources.map((path) => [path, readFileSync(join(root, path), 'utf8')]))
const importPattern =
  /(?:^|\n)\s*(?:import|export)\s[^'"]*?from\s+['"]([^'"]+)['"]|(?:^|[^\w.])import\(\s*['"]([^'"]+)['"]\s*\)|(?:^|\n)import\s+['"]([^'"]+)['"]/g

/** Paths below the project's root that a file imports. */
function importsOf(path: string): string[] {
  return importsIn(path, text.get(path) ?? '')
}

function importsIn(path: string, body: string): string[] {
  return [...body.matchAll(importPattern)]
    .map((match) => match[1] ?? match[2] ?? match[3] ?? '')
    .map((target) =>
      target.startsWith('#')
        ? `src/${target.slice(1)}`
        : target.startsWith('.')
          ? normalize(join(dirname(path), target))
          : target,
    )
}

function folderOf(path: string): string {
  return path.split('/')[1]?.replace(/\.ts$/, '') ?? ''
}

function complain(complaints: readonly string[], advice: string): void {
  assert.equal(complaints.length, 0, `${advice}\n  ${complaints.join('\n  ')}`)
}

test('imports point down only', () => {
  const complaints: string[] = []
  for (const path of product) {
    const from = folderOf(path)
    if (compositionRoots.includes(from)) continue
    const allowed = mayImport[from]
    if (!allowed) complaints.push(`${path}: the folder src/${from} is not in tools/layers.ts`)
    for (const target of importsOf(path).filter((name) => name.startsWith('src/'))) {
      const to = folderOf(target)
      if (to !== from && !commonRoots.includes(to) && !allowed?.includes(to))
        complaints.push(`${path} imports ${target}`)
    }
  }
  complain(
    complaints,
    'These imports climb or cross (tools/layers.ts). Move the code down, or hand the thing in from above.',
  )
})

test('the rooms of the datastore take from those below them only', () => {
  const roomOf = (path: string) => path.split('/')[2]?.replace(/\.ts$/, '') ?? ''
  const levelOf = (path: string) => datastoreRooms.findIndex((level) => level.includes(roomOf(path)))
  const complaints: string[] = []
  for (const path of product.filter((name) => name.startsWith('src/datastore/'))) {
    if (levelOf(path) === -1) complaints.push(`${path}: '${roomOf(path)}' is not in tools/layers.ts`)
    if (datastoreDoor.includes(roomOf(path))) continue
    for (const target of importsOf(path).filter((name) => name.startsWith('src/datastore/')))
      if (levelOf(target) > levelOf(path)) complaints.push(`${path} imports ${target}`)
  }
  complain(complaints, 'These imports climb (tools/layers.ts). Move what lies in the wrong room.')
})

test('the borders are kept: processes in host/, the environment in settings.ts, time in base/', () => {
  const complaints: string[] = []
  for (const path of product) {
    const body = text.get(path) ?? ''
    if (!path.startsWith('src/host/') && /['"]node:child_process['"]/.test(body))
      complaints.push(`${path}: child_process belongs to src/host/`)
    if (
      path !== 'src/settings.ts' &&
      !/^src\/(host|lab)\//.test(path) &&
      /process\.env\b/.test(body) &&
      !/^src\/(main|front|worker)\.ts$/.test(path) &&
      path !== 'src/cli/main.ts'
    ) {
      complaints.push(`${path}: process.env belongs to src/settings.ts`)
    }
    if (!path.startsWith('src/base/') && /\bDate\.now\(\)|\bnew Date\(\)|Math\.random\(/.test(body))
      complaints.push(`${path}: take a Clock or Random from src/base/`)
    if (/import (?!type\b)[^;'"]* from 'node:http'/.test(body))
      complaints.push(`${path}: an import of node:http loads undici too (src/http/node-http.ts has the other way)`)
  }
  complain(complaints, 'These reach past a border.')
})

test('across folders an import starts with #, inside one with ./', () => {
  const complaints: string[] = []
  for (const path of product) {
    for (const match of (text.get(path) ?? '').matchAll(importPattern)) {
      const target = match[1] ?? match[2] ?? match[3] ?? ''
      if (!target.startsWith('.') || target.endsWith('.json')) continue
      const absolute = normalize(join(dirname(path), target))
      if (folderOf(absolute) !== folderOf(path) && dirname(absolute) !== dirname(path))
        complaints.push(`${path}: ${target}`)
    }
  }
  complain(complaints, 'Write these as #folder/file.ts, so that crossing a border shows.')
})

test(`no file is longer than ${longestFile} lines`, () => {
  const complaints = sources
    .map((path) => ({ path, lines: (text.get(path) ?? '').split('\n').length - 1 }))
    .filter(({ lines }) => lines > longestFile)
    .map(({ path, lines }) => `${path}: ${lines}`)
  complain(complaints, 'Too long: which nouns hide in these?')
})

test('no file is named after nothing', () => {
  const complaints = sources.filter((path) => bannedNames.includes(basename(path).replace(/(\.test)?\.ts$/, '')))
  complain(complaints, 'These names say nothing. Find the noun.')
})

test('every source file is reached from an entry or a test', () => {
  const seen = new Set<string>()
  // An entry run as a process of its own is named by its path somewhere, not imported.
  const entries = sources.filter((path) =>
    /\.test\.ts$|^src\/(main|front|worker)\.ts$|^src\/cli\/main\.ts$|^(tools|bench)\//.test(path),
  )
  const named = product.filter((path) =>
    [...text.values()].some((body) => body.includes(`/${basename(path)}'`) && /import\.meta|Entry|entry/.test(body)),
  )
  const queue = [...entries, ...named]
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    if (seen.has(path)) continue
    seen.add(path)
    queue.push(...importsOf(path).filter((target) => text.has(target)))
  }
  complain(
    product.filter((path) => !seen.has(path)),
    'Nobody uses these files. Delete them, or import them where they are needed.',
  )
})

test('what is loaded on demand is what its type says', () => {
  const complaints: string[] = []
  for (const path of product) {
    const body = text.get(path) ?? ''
    for (const [, name = '', target = ''] of body.matchAll(/\bload<typeof (\w+)>\(\s*'([^']+)'/g)) {
      if (!body.includes(`import type * as ${name} from '${target}'`))
        complaints.push(`${path}: ${name} is not ${target}`)
    }
  }
  complain(complaints, 'The path and the `import type * as` of the same name have to agree.')
})

test('a process that waits for its task has loaded no operation, and of no service more than most tasks need', () => {
  const seen = new Set<string>()
  const queue = ['src/worker.ts']
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    if (seen.has(path)) continue
    seen.add(path)
    const body = (text.get(path) ?? '').replaceAll(/^import type .*$/gm, '').replaceAll(/\bimport\(/g, '')
    queue.push(...importsIn(path, body).filter((target) => text.has(target)))
  }
  const wanted =
    /^src\/(?:operations\/(?!all\.ts)|datastore|backup\/(?!places\.ts)|recovery|plans|access|observe|consoles|guests\/\w+\/driver)/
  assert.ok(seen.has('src/guests/service.ts'))
  complain(
    [...seen].filter((path) => wanted.test(path)),
    'Load these when they are asked for (docs/decisions/modules-on-demand.md).',
  )
})

test('links between documents lead somewhere', () => {
  const complaints: string[] = []
  for (const path of tracked.filter((name) => name.endsWith('.md'))) {
    const body = readFileSync(join(root, path), 'utf8')
    for (const [, target = ''] of body.matchAll(/\]\(([^)#\s]+)[^)]*\)/g)) {
      if (/^[a-z]+:/.test(target)) continue
      if (!existsSync(join(root, dirname(path), target))) complaints.push(`${path}: ${target}`)
    }
  }
  complain(complaints, 'These links are dead.')
})

test('a module opens by saying what it is', () => {
  const complaints = product.filter((path) => !/^(#!.*\n)?\/\*\*/.test(text.get(path) ?? ''))
  complain(complaints, 'Begin these files with a comment: the idea, the invariants.')
})
