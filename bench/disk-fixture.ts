/**
 * A disk as servers have them: 8 GiB raw with some 2.4 GiB on it, a Debian system from the distribution's packages, logs,
 * a database, and files nothing can compress. What is not Debian's follows from fixed seeds.
 *
 * Two later states of it are kept as what differs: `changed` after a day of work (about 1 % of its blocks), `sibling`
 * as another machine made from the same image. One file turns from one into another, as a real disk does.
 */
import { createCipheriv, createHash } from 'node:crypto'
import { execFileSync } from 'node:child_process'
import {
  appendFileSync,
  closeSync,
  existsSync,
  fstatSync,
  globSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { GiB, MiB } from '#base/bytes.ts'
import { machine } from '#host/exec.ts'
import { packageMirror } from '#lab/package-mirror.ts'

const sizeBytes = 8 * GiB
const pageBytes = 8_192
const packages = 'systemd-sysv linux-image-amd64 build-essential git python3 postgresql nginx openssh-server vim'.split(
  ' ',
)
const sizes = { logs: 200 * MiB, database: 100 * MiB, media: 210 * MiB }
const states = ['changed', 'sibling'] as const
export type DiskState = 'first' | (typeof states)[number]

export interface DiskFixture {
  readonly path: string
  /** Leaves the disk in that state, and newer than before even where nothing differs. */
  readonly turnTo: (state: DiskState) => void
}

/** @param folder holds the disk afterwards; one that is there already is taken as it is */
export async function diskFixture(folder: string): Promise<DiskFixture> {
  const path = join(folder, 'disk.raw')
  if (!existsSync(path)) await build(folder, path)
  let now: DiskState = 'first'
  return {
    path,
    turnTo(state) {
      if (now !== 'first') apply(path, deltaPath(folder, now), 'before')
      if (state !== 'first') apply(path, deltaPath(folder, state), 'after')
      now = state
      execFileSync('touch', [path])
    },
  }
}

function deltaPath(folder: string, state: DiskState): string {
  return join(folder, `${state}.delta`)
}

async function build(folder: string, path: string): Promise<void> {
  const [fresh, other, mounted] = [`${path}.new`, `${path}.other`, join(folder, 'mounted')]
  mkdirSync(mounted, { recursive: true })
  const { mirror, suite } = await packageMirror(machine(), 'base-files')
  writeFileSync(fresh, '')
  truncateSync(fresh, sizeBytes)
  const options = 'lazy_itable_init=0,lazy_journal_init=0,hash_seed=4a5a2b3c-0000-4000-8000-000000000002'
  execFileSync('mkfs.ext4', ['-q', '-U', '4a5a2b3c-0000-4000-8000-000000000001', '-E', options, fresh])
  inside(fresh, mounted, () => {
    const apt = ['--aptopt=Acquire::Languages "none"', '--aptopt=APT::Install-Recommends "false"']
    const how = ['--quiet', '--mode=root', '--variant=important', '--format=directory', '--dpkgopt=force-unsafe-io']
    const tree = join(mounted, 'system')
    execFileSync('mmdebstrap', [...how, ...apt, `--include=${packages.join(',')}`, suite, tree, mirror])
    fill(mounted)
  })
  for (const [state, act] of [['changed', aDayLater] as const, ['sibling', anotherMachine] as const]) {
    execFileSync('cp', ['--sparse=always', fresh, other])
    inside(other, mounted, () => act(mounted))
    writeDelta(fresh, other, deltaPath(folder, state))
    rmSync(other)
  }
  renameSync(fresh, path)
}

function inside(image: string, mounted: string, act: () => void): void {
  execFileSync('mount', ['-o', 'loop,noatime', image, mounted])
  try {
    act()
  } finally {
    execFileSync('umount', [mounted])
  }
}

function fill(root: string): void {
  const [logs, media] = [join(root, 'system/var/log/web'), join(root, 'system/srv/media')]
  for (const folder of [logs, media]) mkdirSync(folder, { recursive: true })
  for (let at = 0; at < sizes.logs / (10 * MiB); at += 1) {
    writeFileSync(join(logs, `access-${at}.log`), logLines(`log ${at}`, 10 * MiB))
  }
  for (let at = 0; at < sizes.media / (15 * MiB); at += 1) {
    writeFileSync(join(media, `${at}.jpg`), chance(`media ${at}`, 15 * MiB))
  }
  writeFileSync(databaseOf(root), '')
  for (let at = 0; at < sizes.database / MiB; at += 1) {
    appendFileSync(
      databaseOf(root),
      Buffer.concat(Array.from({ length: MiB / pageBytes }, (_, page) => pageOf(`${at} ${page}`))),
    )
  }
}

function databaseOf(root: string): string {
  return join(root, 'system/var/lib/postgresql/base')
}

/** Half of it numbers, a quarter text, and room. */
function pageOf(seed: string): Buffer {
  const page = Buffer.alloc(pageBytes)
  chance(seed, pageBytes / 2).copy(page)
  logLines(seed, pageBytes / 4).copy(page, pageBytes / 2)
  return page
}

/** Scattered pages of a database, logs that grew, packages that were upgraded, a file that came. */
function aDayLater(root: string): void {
  touchPages(root, 'changed', 350)
  appendFileSync(join(root, 'system/var/log/web/access-0.log'), logLines('changed', 12 * MiB))
  upgrade(root, 'changed', 90)
  writeFileSync(join(root, 'system/srv/media/new.jpg'), chance('changed', 3 * MiB))
}

/** Names and keys of its own, a shorter history, another database. */
function anotherMachine(root: string): void {
  writeFileSync(join(root, 'system/etc/hostname'), 'sibling\n')
  writeFileSync(join(root, 'system/etc/machine-id'), `${'5'.repeat(32)}\n`)
  touchPages(root, 'sibling', 500)
  upgrade(root, 'sibling', 150)
  for (let at = 0; at < 6; at += 1) {
    writeFileSync(join(root, `system/var/log/web/access-${at}.log`), logLines(`sibling ${at}`, 9 * MiB))
  }
  writeFileSync(join(root, 'system/srv/media/sibling.jpg'), chance('sibling', 15 * MiB))
}

function touchPages(root: string, seed: string, count: number): void {
  const file = openSync(databaseOf(root), 'r+')
  const where = chance(`pages ${seed}`, 4 * count)
  for (let at = 0; at < count; at += 1) {
    const page = where.readUInt32LE(4 * at) % (sizes.database / pageBytes)
    writeSync(file, pageOf(`${seed} ${at}`), 0, pageBytes, page * pageBytes)
  }
  closeSync(file)
}

/** Programs come anew, as a package manager brings them: beside the old file, and then in its place. */
function upgrade(root: string, seed: string, count: number): void {
  const programs = globSync(join(root, 'system/usr/sbin/*')).toSorted()
  const where = chance(`programs ${seed}`, 4 * count)
  for (let at = 0; at < count; at += 1) {
    const path = programs[where.readUInt32LE(4 * at) % programs.length] ?? ''
    // Links lead elsewhere, and one of them out of the disk would be ours.
    if (!execFileSync('stat', ['--format=%F', path], { encoding: 'utf8' }).startsWith('regular file')) continue
    const content = readFileSync(path)
    content.set(chance(`${seed} ${at}`, Math.min(64, content.length)))
    writeFileSync(`${path}.new`, content)
    renameSync(`${path}.new`, path)
  }
}

function chance(seed: string, length: number): Buffer {
  const key = createHash('sha256').update(seed).digest()
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length))
}

const words = 'index cart login images/logo.png api/v1/orders api/v1/items static/app.js favicon.ico search help'.split(
  ' ',
)

/** As a web server writes them. */
function logLines(seed: string, length: number): Buffer {
  const source = chance(`lines ${seed}`, 65_536)
  const lines: string[] = []
  let [bytes, second] = [0, 0]
  for (let at = 0; bytes < length; at = (at + 7) % (source.length - 16)) {
    const byte = (offset: number) => source[at + offset] ?? 0
    second += byte(0) % 3
    const address = `10.${byte(1) & 7}.${byte(2) & 31}.${byte(3)}`
    const when = new Date(1_790_000_000_000 + second * 1_000).toISOString()
    const word = words[byte(4) % words.length] ?? ''
    const size = source.readUInt32LE(at + 5) % 50_000
    const line = `${address} - - [${when}] "GET /${word}?id=${size ^ second} HTTP/1.1" ${byte(6) < 20 ? 404 : 200} ${size} "-" "Mozilla/5.0"\n`
    lines.push(line)
    bytes += line.length
  }
  return Buffer.from(lines.join('')).subarray(0, length)
}

const deltaBlock = 4_096
const deltaEntry = 8 + 2 * deltaBlock

/** For each block that differs its offset, and how it is before and after. */
function writeDelta(before: string, after: string, path: string): void {
  const [one, two, delta] = [openSync(before, 'r'), openSync(after, 'r'), openSync(path, 'w')]
  const [a, b] = [Buffer.alloc(MiB), Buffer.alloc(MiB)]
  for (let offset = 0; offset < fstatSync(one).size; offset += MiB) {
    readSync(one, a, 0, MiB, offset)
    readSync(two, b, 0, MiB, offset)
    if (a.equals(b)) continue
    for (let at = 0; at < MiB; at += deltaBlock) {
      const [old, now] = [a.subarray(at, at + deltaBlock), b.subarray(at, at + deltaBlock)]
      if (old.equals(now)) continue
      const where = Buffer.alloc(8)
      where.writeBigUInt64LE(BigInt(offset + at))
      writeSync(delta, Buffer.concat([where, old, now]))
    }
  }
  for (const file of [one, two, delta]) closeSync(file)
}

function apply(path: string, delta: string, which: 'before' | 'after'): void {
  const [entries, file] = [readFileSync(delta), openSync(path, 'r+')]
  const from = which === 'before' ? 8 : 8 + deltaBlock
  for (let at = 0; at < entries.length; at += deltaEntry) {
    const content = entries.subarray(at + from, at + from + deltaBlock)
    const offset = Number(entries.readBigUInt64LE(at))
    writeSync(file, content, 0, deltaBlock, offset)
  }
  closeSync(file)
}
