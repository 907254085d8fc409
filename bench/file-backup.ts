/**
 * A backup of very many small files, file by file: all of them, when nothing has changed since, and when one in a
 * hundred has, each as a process of its own against Debian's restic and borg on the same files in the same round.
 *
 * We and restic encrypt and cannot do otherwise; borg does not here. All write to new repositories each round.
 *
 *   node bench/file-backup.ts [files] [rounds]
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { nodeFlags } from '#base/node-flags.ts'
import { makeEveryEntry, makeManyFiles, pathOfMany, smallContent, thereAndBack } from '../test/fixtures/every-entry.ts'
import { makeDatastore } from '../test/fixtures/sealed-datastore.ts'
import { median, row, table } from './figures.ts'
import { withPackages } from './peers.ts'
import { type Command, type Figures, once } from './process.ts'

const [files = 100_000, rounds = 3] = process.argv.slice(2).map(Number)
const works = ['all of it', 'nothing changed', '1 % changed', 'nothing changed since'] as const

await using undo = new AsyncDisposableStack()
undo.use(await withPackages('restic', 'borgbackup'))
const scratch = mkdtempSync('/var/tmp/hako-files-')
undo.defer(() => rmSync(scratch, { recursive: true, force: true }))
const tree = join(scratch, 'tree')
makeManyFiles(tree, files)

process.env.RESTIC_PASSWORD = 'bench'
process.env.RESTIC_CACHE_DIR = join(scratch, 'restic-cache')
for (const name of ['CACHE', 'CONFIG', 'SECURITY']) process.env[`BORG_${name}_DIR`] = join(scratch, `borg-${name}`)
process.env.NODE_COMPILE_CACHE = join(import.meta.dirname, '../node_modules/.cache/compiled')

interface Tool {
  readonly prepare: (place: string) => unknown
  readonly backUp: (place: string, number: number) => Command
}

const tools: Readonly<Record<string, Tool>> = {
  hakobune: {
    prepare: (place) => makeDatastore(place),
    backUp: (place, number) => [
      process.execPath,
      ...nodeFlags,
      join(import.meta.dirname, 'backup-tree.ts'),
      place,
      tree,
      String(number),
    ],
  },
  restic: {
    prepare: (place) => void execFileSync('restic', ['init', '--quiet', '--repo', place]),
    backUp: (place) => ['restic', 'backup', '--quiet', '--repo', place, tree],
  },
  borg: {
    prepare: (place) => void execFileSync('borg', ['init', '--encryption', 'none', place]),
    backUp: (place, number) => ['borg', 'create', `${place}::${number}`, tree],
  },
}

const samples = new Map<string, Figures[]>()
const sizes = new Map<string, number[]>()
for (let round = -1; round < rounds; round += 1) {
  const places = Object.fromEntries(Object.keys(tools).map((name) => [name, join(scratch, name)]))
  for (const [name, { prepare }] of Object.entries(tools)) await prepare(places[name] ?? '')
  for (const [number, work] of works.entries()) {
    if (work === '1 % changed') change(round)
    for (const [name, { backUp }] of Object.entries(tools)) {
      // What one of them left to be written is not paid for by the next.
      execFileSync('sync', ['--file-system', scratch])
      warm()
      const figures = once(name, backUp(places[name] ?? '', number))
      // The first round fills the page cache and what is kept compiled.
      if (round < 0) continue
      add(samples, `${work} ${name}`, figures)
      add(sizes, `${work} ${name}`, sizeOf(places[name] ?? ''))
    }
  }
  for (const place of Object.values(places)) rmSync(place, { recursive: true, force: true })
  for (const name of ['restic-cache', 'borg-CACHE', 'borg-CONFIG', 'borg-SECURITY']) {
    rmSync(join(scratch, name), { recursive: true, force: true })
    mkdirSync(join(scratch, name))
  }
}

/** borg takes out of the page cache what it has read; whoever comes after it would read from the disk. */
function warm(): void {
  for (let number = 0; number < files; number += 1) readFileSync(join(tree, pathOfMany(number)))
}

/** Other content in every hundredth file. */
function change(round: number): void {
  for (let number = (round + 50) % 100; number < files; number += 100) {
    writeFileSync(join(tree, pathOfMany(number)), smallContent(number, round + 1_000))
  }
}

function add<T>(to: Map<string, T[]>, key: string, value: T): void {
  to.set(key, [...(to.get(key) ?? []), value])
}

function sizeOf(place: string): number {
  return Number(execFileSync('du', ['--summarize', '--bytes', place], { encoding: 'utf8' }).split('\t')[0]) / 2 ** 20
}

// Once, after all: what all of this is for.
const every = join(tree, 'every')
mkdirSync(every)
await makeEveryEntry(every, { withDevices: false })
await using made = await makeDatastore(join(scratch, 'hakobune'))
const differ = await thereAndBack(await made.reopen(), tree, scratch)

const figure = (key: string, of: (figures: Figures) => number) => median((samples.get(key) ?? []).map(of))
for (const work of works) {
  const cpu = (name: string) => figure(`${work} ${name}`, ({ cpuMs }) => cpuMs)
  const faster = Math.min(cpu('restic'), cpu('borg'))
  const lines = Object.keys(tools).map((name) =>
    row(
      name,
      figure(`${work} ${name}`, ({ wallMs }) => wallMs).toFixed(0),
      cpu(name).toFixed(0),
      (cpu(name) / faster).toFixed(2),
      median(sizes.get(`${work} ${name}`) ?? []).toFixed(1),
    ),
  )
  table(row(`${files} files: ${work}`, 'wall ms', 'CPU ms', 'x CPU', 'MiB'), lines)
}
process.stdout.write(
  `restored for an unprivileged container, backed up and restored again: ${differ.length} differences\n`,
)
for (const line of differ.slice(0, 10)) process.stdout.write(`${line.slice(0, 200)}\n`)
