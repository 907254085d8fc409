/** Packages of a node as clients read them. */
import { productName, productVersion } from '#base/product.ts'
import type { Host } from '#host/host.ts'
import { digestOf, type PackageSources } from '#cluster/package-sources.ts'
import type { Repository, RepositoryFile } from '#host/system/package-sources.ts'
import { installedPackages, packageFacts, upgrades } from '#host/system/packages.ts'

/** What a node is made of, beside our own. */
const parts = [
  'qemu-system-x86',
  'qemu-system-arm',
  'qemu-utils',
  'ovmf',
  'swtpm',
  'dnsmasq-base',
  'nftables',
  'iproute2',
  'lvm2',
  'zfsutils-linux',
  'ceph-common',
  'nfs-common',
  'open-iscsi',
  'smartmontools',
  'genisoimage',
  'xorriso',
  'libc6',
  'systemd',
  'openssh-server',
  'linux-image-amd64',
  'linux-image-arm64',
] as const

export async function packageVersions(host: Host, kernel: string) {
  const installed = await installedPackages(host, parts)
  const own = {
    Package: productName.toLowerCase(),
    Version: productVersion,
    OldVersion: productVersion,
    Title: 'Virtualization platform that proves what it backs up can be recovered',
    Description: '',
    Origin: productName,
    Section: 'admin',
    Priority: 'optional',
    Arch: 'all',
    CurrentState: 'Installed',
    RunningKernel: kernel,
    ManagerVersion: productVersion,
  }
  const others = installed.map(({ name, version, arch, section, priority, title }) => ({
    Package: name,
    Version: version,
    OldVersion: version,
    Title: title,
    Description: '',
    Origin: 'Debian',
    Section: section,
    Priority: priority,
    Arch: arch,
    CurrentState: 'Installed',
  }))
  return [own, ...others]
}

export async function packageUpgrades(host: Host) {
  const found = await upgrades(host)
  const facts = await packageFacts(
    host,
    found.map(({ name }) => name),
  )
  return found.map(({ name, installed, version, origin, arch }) => {
    const about = facts.get(name)
    return {
      Package: name,
      Version: version,
      ...(installed === undefined ? {} : { OldVersion: installed }),
      Title: about?.title ?? '',
      Description: about?.description ?? '',
      Origin: origin,
      Section: about?.section ?? '',
      Priority: about?.priority ?? '',
      Arch: arch,
    }
  })
}

export async function packageSources(sources: PackageSources) {
  const files = await sources.files()
  return {
    digest: digestOf(files),
    files: files.map(sourceFile),
    errors: [],
    infos: files.flatMap(originsOf),
    'standard-repos': (await sources.standard()).map(({ handle, name, isEnabled }) => ({
      handle,
      name,
      ...(isEnabled === undefined ? {} : { status: isEnabled ? 1 : 0 }),
    })),
  }
}

function sourceFile({ path, type, digest, repositories }: RepositoryFile) {
  return { path, 'file-type': type, digest: [...digest], repositories: repositories.map((one) => source(one, type)) }
}

function source({ types, uris, suites, components, options, isEnabled, comment }: Repository, type: string) {
  return {
    Types: [...types],
    URIs: [...uris],
    Suites: [...suites],
    Components: [...components],
    Options: Object.entries(options).map(([Key, Values]) => ({ Key, Values: [...Values] })),
    Enabled: isEnabled ? 1 : 0,
    FileType: type,
    ...(comment === '' ? {} : { Comment: comment }),
  }
}

function originsOf({ path, repositories }: RepositoryFile) {
  return repositories.map(({ uris }, index) => ({
    path,
    index: String(index),
    kind: 'origin',
    message: uris.some((uri) => /debian\.org(?:\/|$)/.test(uri)) ? 'Debian' : 'Other',
  }))
}
