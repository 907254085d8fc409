/**
 * The template of lab and tests: Debian with systemd, built once from the distribution's packages and kept.
 *
 * Small, because it is unpacked for every container: systemd with its own DHCP client, a web server for a service to
 * ask, and none of what a container of a test has no use for. An archive that is there is complete: it appears by one
 * rename. One builder at a time holds `lock`; others wait and find it.
 */
import { createHash } from 'node:crypto'
import { cp, glob, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { codeOf } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { unmountBelow } from '#host/mount.ts'
import { holdLock } from '#host/build-lock.ts'
import { type PackageMirror, packageMirror } from './package-mirror.ts'

const files = join(import.meta.dirname, 'container')
const packages = ['systemd-sysv', 'iproute2', 'busybox-static']
/** Nothing in the container reads these. */
const leftOut = ['/usr/share/doc/*', '/usr/share/man/*', '/usr/share/locale/*', '/usr/share/info/*']
/** What is needed to install the packages, and not afterwards. */
const emptied = ['usr/share/perl', 'usr/lib/*/perl', 'usr/lib/*/gconv', 'var/cache/apt', 'var/lib/apt/lists', 'var/log']
/** What waits for hardware, keeps house over months, or speaks over a bus that is not there. */
const switchedOff = [
  'dpkg-db-backup.timer',
  'e2scrub_all.timer',
  'e2scrub_reap.service',
  'fstrim.timer',
  'getty-static.service',
  'systemd-journal-flush.service',
  'systemd-logind.service',
  'systemd-networkd-wait-online.service',
  'systemd-pstore.service',
  'systemd-timesyncd.service',
  'systemd-update-utmp-runlevel.service',
  'systemd-update-utmp.service',
]
const switchedOn = ['systemd-networkd.service', 'web.service']
const buildMs = 300_000

export interface TemplateRequest {
  readonly host: Host
  readonly cacheDir: string
  readonly signal?: AbortSignal | undefined
  /** Told what is being done, a sentence each. */
  readonly say?: (line: string) => void
}

/** Path of the archive: a `.tar.zst` with a name storages take for templates. */
export async function ensureContainerTemplate(request: TemplateRequest): Promise<string> {
  const { host, cacheDir } = request
  const home = join(cacheDir, 'container')
  const mirror = await packageMirror(host, 'base-files')
  const { stdout: architecture } = await host.run(['dpkg', '--print-architecture'])
  const archive = join(home, await keyOf(mirror), `${mirror.suite}-small_1_${architecture.trim()}.tar.zst`)
  if (await exists(archive)) return archive
  await mkdir(home, { recursive: true, mode: 0o755 })
  await using _lock = await holdLock(join(home, 'lock'), request)
  if (!(await exists(archive))) await build(request, home, archive, mirror)
  return archive
}

async function keyOf({ mirror, suite }: PackageMirror): Promise<string> {
  const hash = createHash('sha256').update(`${mirror} ${suite}\n`)
  const entries = await readdir(files, { recursive: true, withFileTypes: true })
  const own = entries.flatMap((entry) => (entry.isFile() ? [join(entry.parentPath, entry.name)] : []))
  for (const path of [import.meta.filename, ...own.toSorted()]) hash.update(await readFile(path))
  return hash.digest('hex').slice(0, 16)
}

async function build(
  { host, signal, say = () => {} }: TemplateRequest,
  home: string,
  archive: string,
  mirror: PackageMirror,
): Promise<void> {
  await sweep(host, home)
  const place = await mkdtemp(join(home, '.build-'))
  await using scope = new AsyncDisposableStack()
  scope.defer(() => rm(place, { recursive: true, force: true }))
  const [tree, result] = [join(place, 'tree'), join(place, 'result')]
  await mkdir(result)
  say('fetching the packages of the container template from the distribution')
  await layTree(host, tree, mirror, signal)
  say('packing the container template')
  const options = ['--numeric-owner', '--xattrs', '--xattrs-include=security.capability', '--sort=name', '--anchored']
  const packing = ['tar', '--create', '--use-compress-program=zstd -6 -T0', ...options, '--exclude=./dev/*'] as const
  const target = join(result, basename(archive))
  await host.run([...packing, `--directory=${tree}`, `--file=${target}`, '.'], { timeoutMs: buildMs, signal })
  await rename(result, join(archive, '..'))
}

async function layTree(
  host: Host,
  tree: string,
  { mirror, suite }: PackageMirror,
  signal?: AbortSignal,
): Promise<void> {
  const options = [
    '--dpkgopt=force-unsafe-io',
    ...leftOut.map((path) => `--dpkgopt=path-exclude=${path}`),
    '--aptopt=Acquire::Languages "none"',
    '--aptopt=APT::Install-Recommends "false"',
    `--include=${packages.join(',')}`,
  ]
  const argv = [
    'mmdebstrap',
    '--quiet',
    '--mode=root',
    '--variant=essential',
    '--format=directory',
    ...options,
  ] as const
  await host.run([...argv, suite, tree, mirror], { timeoutMs: buildMs, signal })
  await cp(join(files, 'root'), tree, { recursive: true })
  const units = join(tree, 'etc/systemd/system')
  for (const unit of switchedOff) await symlink('/dev/null', join(units, unit)).catch(ifThere)
  await mkdir(join(units, 'multi-user.target.wants'), { recursive: true })
  for (const unit of switchedOn) {
    const home = (await exists(join(units, unit))) ? '/etc/systemd/system' : '/lib/systemd/system'
    await symlink(`${home}/${unit}`, join(units, 'multi-user.target.wants', unit)).catch(ifThere)
  }
  const inside = emptied.map((path) => `${path}/*`)
  for await (const path of glob(inside, { cwd: tree })) await rm(join(tree, path), { recursive: true, force: true })
  await writeFile(join(tree, 'etc/machine-id'), '')
}

/** Removes what builders that were killed left behind, mounts included. */
async function sweep(host: Host, home: string): Promise<void> {
  for (const name of await readdir(home)) {
    if (!name.startsWith('.build-')) continue
    await unmountBelow(host, join(home, name))
    await rm(join(home, name), { recursive: true, force: true })
  }
}

function ifThere(cause: unknown): void {
  if (codeOf(cause) !== 'EEXIST') throw cause
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return false
    throw cause
  }
}
