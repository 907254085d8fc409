/**
 * The template of lab and tests: Debian with systemd, built once from the distribution's packages and kept.
 *
 * Small, because it is unpacked for every container: systemd with its own DHCP client, a web server for a service to
 * ask, and none of what a container of a test has no use for.
 */
import { existsSync } from 'node:fs'
import { glob, mkdir, rm, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { Host } from '#host/host.ts'
import { keptBuild, keyOf } from '#host/files/kept-build.ts'
import { distributionTree, layDistribution } from './distribution-tree.ts'
import { type PackageMirror, packageMirror } from './package-mirror.ts'

const files = join(import.meta.dirname, 'container')
const packages = ['systemd-sysv', 'iproute2', 'busybox-static']
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
const packMs = 300_000

export interface TemplateRequest {
  readonly host: Host
  readonly cacheDir: string
  readonly signal?: AbortSignal | undefined
  /** Told what is being done, a sentence each. */
  readonly say?: (line: string) => void
}

/** Path of the archive: a `.tar.zst` with a name storages take for templates. */
export async function ensureContainerTemplate(request: TemplateRequest): Promise<string> {
  const { host, cacheDir, signal } = request
  const source = await packageMirror(host, 'base-files')
  const { stdout: architecture } = await host.run(['dpkg', '--print-architecture'])
  const file = `${source.suite}-small_1_${architecture.trim()}.tar.zst`
  const key = await keyOf([`${source.mirror} ${source.suite}`], [import.meta.filename, distributionTree, files])
  const make = (place: string, result: string) => makeArchive(request, source, join(place, 'tree'), join(result, file))
  return join(await keptBuild(host, { home: join(cacheDir, 'container'), key, file, make, signal }), file)
}

async function makeArchive(
  { host, signal, say = () => {} }: TemplateRequest,
  source: PackageMirror,
  tree: string,
  archive: string,
): Promise<void> {
  say('fetching the packages of the container template from the distribution')
  await layTree(host, tree, source, signal)
  say('packing the container template')
  const options = ['--numeric-owner', '--xattrs', '--xattrs-include=security.capability', '--sort=name', '--anchored']
  const packing = ['tar', '--create', '--use-compress-program=zstd -6 -T0', ...options, '--exclude=./dev/*'] as const
  await host.run([...packing, `--directory=${tree}`, `--file=${archive}`, '.'], { timeoutMs: packMs, signal })
}

async function layTree(host: Host, tree: string, source: PackageMirror, signal?: AbortSignal): Promise<void> {
  const options = ['--aptopt=APT::Install-Recommends "false"']
  const laid = { variant: 'essential', packages, options, files: join(files, 'root'), switchedOff, signal } as const
  await layDistribution(host, tree, source, laid)
  const units = join(tree, 'etc/systemd/system')
  await mkdir(join(units, 'multi-user.target.wants'), { recursive: true })
  for (const unit of switchedOn) {
    const home = existsSync(join(units, unit)) ? '/etc/systemd/system' : '/lib/systemd/system'
    const link = join(units, 'multi-user.target.wants', unit)
    await rm(link, { force: true })
    await symlink(`${home}/${unit}`, link)
  }
  const inside = emptied.map((path) => `${path}/*`)
  for await (const path of glob(inside, { cwd: tree })) await rm(join(tree, path), { recursive: true, force: true })
}
