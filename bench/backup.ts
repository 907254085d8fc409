/**
 * Backups of a whole disk beside Debian's restic and borg, borg once with its defaults and once tuned for disks: the
 * first, one where nothing changed, one after a day of work, one of a sibling machine, a restore of the first, and a
 * check of everything there is. Each is a process of its own; all read the whole disk each time, encrypt, and are
 * opened with a passphrase. Repositories are new each round.
 *
 * CPU is that of the whole process tree. The most memory is that of its largest process, as the kernel tells GNU time.
 *
 *   node bench/backup.ts [rounds] [folder to keep the disk in, and to take it from]
 */
import { execFileSync } from 'node:child_process'
import { createReadStream, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { MiB } from '#base/bytes.ts'
import { nodeFlags } from '#base/node-flags.ts'
import { diskFixture, type DiskState } from './disk-fixture.ts'
import { median, row, table } from './figures.ts'
import { withPackages } from './peers.ts'
import { type Command, measured, type MeasuredFigures } from './process.ts'

const rounds = Number(process.argv[2] ?? 3)
const keptIn = process.argv[3]

await using undo = new AsyncDisposableStack()
undo.use(await withPackages('restic', 'borgbackup', 'time'))
const scratch = mkdtempSync('/var/tmp/hako-backup-')
undo.defer(() => rmSync(scratch, { recursive: true, force: true }))
const home = keptIn ?? join(scratch, 'disk')
mkdirSync(home, { recursive: true })
const disk = await diskFixture(home)
undo.defer(() => disk.turnTo('first'))

const restored = join(scratch, 'restored')
const passphrase = join(scratch, 'passphrase')
writeFileSync(passphrase, 'a passphrase for all of them\n')
process.env.RESTIC_PASSWORD_FILE = passphrase
process.env.BORG_PASSPHRASE = readFileSync(passphrase, 'utf8').trim()
process.env.NODE_COMPILE_CACHE = join(import.meta.dirname, '../node_modules/.cache/compiled')

interface Backup {
  readonly guest: string
  readonly name: string
}

interface Tool {
  readonly prepare: (place: string) => void
  readonly backUp: (place: string, backup: Backup) => Command
  /** Into the folder `restored`. */
  readonly restore: (place: string, backup: Backup) => Command
  /** Of everything that is kept, with all its content. */
  readonly verify: (place: string) => Command
}

const main = join(import.meta.dirname, '../src/cli/main.ts')
const hako = (verb: string, place: string, ...args: string[]): Command => {
  const node = [process.execPath, ...nodeFlags, main] as const
  return [...node, 'datastore', verb, place, ...args, '--passphrase-file', passphrase]
}

const hakobune: Tool = {
  prepare(place) {
    const [program, ...args] = hako('init', place)
    const key = join(scratch, 'recovery-key')
    writeFileSync(key, execFileSync(program, args, { stdio: ['ignore', 'pipe', 'ignore'] }))
    execFileSync(process.execPath, [main, 'datastore', 'key', 'confirm', place, '--recovery-key-file', key], {
      stdio: 'ignore',
    })
  },
  backUp: (place, { guest }) => hako('backup', place, disk.path, '--id', guest),
  restore: (place, { guest }) => hako('restore', place, `host/${guest}`, join(restored, 'disk.raw')),
  verify: (place) => hako('verify', place),
}

const restic: Tool = {
  prepare: (place) => void execFileSync('restic', ['init', '--quiet', '--repo', place]),
  // A file whose time has changed is read again, all of it.
  backUp: (place, { name }) => ['restic', 'backup', '--quiet', '--repo', place, '--tag', name, disk.path],
  restore: (place, { name }) => [
    'restic',
    'restore',
    '--quiet',
    '--repo',
    place,
    '--tag',
    name,
    '--target',
    restored,
    'latest',
  ],
  verify: (place) => ['restic', 'check', '--quiet', '--read-data', '--repo', place],
}

function borg(creating: readonly string[], extracting: readonly string[]): Tool {
  return {
    prepare: (place) => void execFileSync('borg', ['init', '--encryption', 'repokey', place], { stdio: 'ignore' }),
    backUp: (place, { name }) => ['borg', 'create', ...creating, `${place}::${name}`, disk.path],
    restore: (place, { name }) => [
      'sh',
      '-c',
      'cd "$0" && exec borg extract "$@"',
      restored,
      ...extracting,
      `${place}::${name}`,
    ],
    verify: (place) => ['borg', 'check', '--verify-data', place],
  }
}

const tools: Readonly<Record<string, Tool>> = {
  hakobune,
  restic,
  borg: borg([], []),
  'borg, tuned': borg(['--sparse', '--chunker-params', 'fixed,4194304', '--compression', 'zstd,3'], ['--sparse']),
}
type Ratios = Readonly<Record<string, number>>
const against = (of: number, borgs: number, tuned: number): Ratios => ({
  restic: of,
  borg: borgs,
  'borg, tuned': tuned,
})

interface Work {
  readonly name: string
  readonly state: DiskState
  /** Times the processor time of each. */
  readonly goals?: Ratios
  readonly act: (tool: Tool, place: string) => Command
}

const backUpAs = (guest: string, name: string) => (tool: Tool, place: string) => tool.backUp(place, { guest, name })
const works: readonly Work[] = [
  { name: 'first full', state: 'first', goals: against(0.33, 0.6, 0.75), act: backUpAs('server', 'first') },
  { name: 'unchanged', state: 'first', goals: against(0.25, 0.25, 0.65), act: backUpAs('server', 'again') },
  { name: '1 % changed', state: 'changed', goals: against(0.25, 0.28, 0.42), act: backUpAs('server', 'changed') },
  { name: 'sibling', state: 'sibling', act: backUpAs('sibling', 'sibling') },
  {
    name: 'full restore',
    // Of the newest backup of the server.
    state: 'changed',
    goals: against(0.55, 0.36, 0.4),
    act: (tool, place) => tool.restore(place, { guest: 'server', name: 'changed' }),
  },
  {
    name: 'verify everything',
    state: 'first',
    goals: against(0.65, 0.65, 0.65),
    act: (tool, place) => tool.verify(place),
  },
]

interface Sample extends MeasuredFigures {
  /** By which the repository grew. */
  readonly storedMiB: number
}
const samples = new Map<string, Sample[]>()

for (let round = 0; round < rounds; round += 1) {
  const places = Object.fromEntries(Object.keys(tools).map((name, number) => [name, join(scratch, `place-${number}`)]))
  for (const name of ['restic', 'borg']) mkdirSync(join(scratch, 'state', name), { recursive: true })
  process.env.RESTIC_CACHE_DIR = join(scratch, 'state/restic')
  process.env.BORG_BASE_DIR = join(scratch, 'state/borg')
  for (const [name, { prepare }] of Object.entries(tools)) prepare(places[name] ?? '')
  for (const { name: work, state, act } of works) {
    for (const [name, tool] of Object.entries(tools)) {
      const place = places[name] ?? ''
      disk.turnTo(state)
      mkdirSync(restored)
      // What one of them left to be written is not paid for by the next; borg leaves nothing of what it read in memory.
      execFileSync('sync', ['--file-system', scratch])
      await warm(disk.path)
      const before = sizeOf(place)
      const figures = measured(`${name}: ${work}`, act(tool, place), scratch)
      const key = `${work} ${name}`
      samples.set(key, [...(samples.get(key) ?? []), { ...figures, storedMiB: sizeOf(place) - before }])
      if (work === 'full restore' && round === 0) requireEqual(name)
      rmSync(restored, { recursive: true })
    }
  }
  for (const place of Object.values(places)) rmSync(place, { recursive: true, force: true })
  rmSync(join(scratch, 'state'), { recursive: true, force: true })
}

/** The next reads what lies in memory, as the one before did. */
async function warm(path: string): Promise<void> {
  for await (const _part of createReadStream(path, { highWaterMark: MiB }));
}

/** restic repeats the path below its target, borg as well. */
function requireEqual(name: string): void {
  const found = execFileSync('find', [restored, '-name', 'disk.raw'], { encoding: 'utf8' }).trim()
  execFileSync('cmp', [found, disk.path])
  process.stderr.write(`${name} restored it bit for bit\n`)
}

function sizeOf(place: string): number {
  return Number(execFileSync('du', ['--summarize', '--bytes', place], { encoding: 'utf8' }).split('\t')[0]) / MiB
}

const figure = (work: string, name: string, of: (sample: Sample) => number) =>
  median((samples.get(`${work} ${name}`) ?? []).map(of))
const cpu = (work: string, name: string) => figure(work, name, ({ cpuMs }) => cpuMs) / 1000
for (const { name: work, goals } of works) {
  const lines = Object.keys(tools).map((name) => {
    const ratio = cpu(work, 'hakobune') / cpu(work, name)
    return row(
      name,
      (figure(work, name, ({ wallMs }) => wallMs) / 1000).toFixed(1),
      cpu(work, name).toFixed(2),
      name === 'hakobune' ? '' : ratio.toFixed(2),
      name === 'hakobune' || !goals ? '' : `${(goals[name] ?? 0).toFixed(2)} ${verdict(ratio <= (goals[name] ?? 0))}`,
      figure(work, name, ({ storedMiB }) => storedMiB).toFixed(1),
      figure(work, name, ({ peakMiB }) => peakMiB).toFixed(0),
    )
  })
  table(row(work, 'wall s', 'CPU s', 'we / it', 'goal', '+ MiB', 'peak MiB'), lines)
}

function verdict(isReached: boolean): string {
  return isReached ? 'yes' : 'NO'
}

const stored = (work: string, name = 'hakobune') => figure(work, name, ({ storedMiB }) => storedMiB)
const peak = Math.max(...works.map(({ name }) => figure(name, 'hakobune', ({ peakMiB }) => peakMiB)))
const sizes: readonly (readonly [string, number, number])[] = [
  ['stored, first full, times restic', stored('first full') / stored('first full', 'restic'), 1.05],
  ['stored, 1 % changed, MiB', stored('1 % changed'), 40],
  ['stored, sibling, MiB', stored('sibling'), 85],
  ['peak memory of any, MiB', peak, 300],
]
table(
  row('sizes', 'we', 'goal', ''),
  sizes.map(([name, value, goal]) => row(name, value.toFixed(2), String(goal), verdict(value <= goal))),
)
