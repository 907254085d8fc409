/** The tree of a Debian with systemd, from the distribution's packages and the mirror this machine uses. */
import { cp, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Host } from '#host/host.ts'
import type { PackageMirror } from './package-mirror.ts'

/** Part of what a tree is made of. */
export const distributionTree = import.meta.filename

/** Nothing in a guest of ours reads these. */
const leftOut = ['/usr/share/doc/*', '/usr/share/man/*', '/usr/share/locale/*', '/usr/share/info/*']
const buildMs = 300_000

export interface WantedTree {
  /** As `mmdebstrap` names it. */
  readonly variant: 'essential' | 'minbase'
  readonly packages: readonly string[]
  /** Further options of `mmdebstrap`. */
  readonly options?: readonly string[]
  /** Directory whose content is laid over the packages'. */
  readonly files: string
  /** Units of systemd that never start. */
  readonly switchedOff: readonly string[]
  readonly signal?: AbortSignal | undefined
}

/** @throws Fault `failed` when a package cannot be fetched */
export async function layDistribution(
  host: Host,
  tree: string,
  { mirror, suite }: PackageMirror,
  { variant, packages, options = [], files, switchedOff, signal }: WantedTree,
): Promise<void> {
  const asked = [
    `--variant=${variant}`,
    '--dpkgopt=force-unsafe-io',
    ...leftOut.map((path) => `--dpkgopt=path-exclude=${path}`),
    '--aptopt=Acquire::Languages "none"',
    ...options,
    `--include=${packages.join(',')}`,
  ]
  const argv = ['mmdebstrap', '--quiet', '--mode=root', '--format=directory', ...asked] as const
  await host.run([...argv, suite, tree, mirror], { timeoutMs: buildMs, signal })
  await cp(files, tree, { recursive: true })
  for (const unit of switchedOff) {
    const link = join(tree, 'etc/systemd/system', unit)
    await rm(link, { force: true })
    await symlink('/dev/null', link)
  }
  // Every guest makes its own.
  await writeFile(join(tree, 'etc/machine-id'), '')
}
