/**
 * Sets up the system inside a container, from outside, while it does not run: once when it is new, and before every
 * start what follows from its configuration. A container whose type is `unmanaged` is left alone, whole.
 */
import { isIP } from 'node:net'
import { Fault } from '#base/fault.ts'
import type { Host } from '#host/host.ts'
import { fixedOf } from './addresses.ts'
import { detectOsType, type Family, familyOf, type OsType } from './family.ts'
import { setTerminals } from './getty.ts'
import { setHostname } from './hostname.ts'
import { setHosts } from './hosts.ts'
import { setLocale } from './locale.ts'
import { forgetMachineId } from './machine-id.ts'
import { setNetwork } from './network.ts'
import { setRootPassword } from './password.ts'
import { setResolver } from './resolv-conf.ts'
import { authorizeRoot, renewHostKeys } from './ssh.ts'
import { setTimezone } from './timezone.ts'
import { namesOf, type Told, type ToldNic } from './told.ts'
import { type Owner, Tree } from './tree.ts'
import { switchOffUnits } from './units.ts'

export interface Inside {
  readonly rootfs: string
  /** Who root inside is, by the ids of the machine. */
  readonly owner: Owner
  readonly ostype: OsType
  /** What could not be done, for the task's log. */
  readonly warn: (line: string) => void
}

export interface ToldOnce {
  /** As it is kept in /etc/shadow: `cryptPassword` makes it. */
  readonly passwordHash?: string | undefined
  /** Lines of authorized_keys. */
  readonly sshKeys?: readonly string[] | undefined
}

/** Which system is in a tree: `unmanaged` when it is none we know. */
export async function osTypeOf({ rootfs, owner }: Pick<Inside, 'rootfs' | 'owner'>): Promise<OsType> {
  using tree = new Tree(rootfs, owner)
  return await detectOsType(tree)
}

/** For a container that was just made from a template; then `setUpForStart` follows, at the latest before it starts. */
export async function setUpNew(host: Host, inside: Inside, told: Told & ToldOnce): Promise<void> {
  const family = familyOf(inside.ostype)
  const { passwordHash, sshKeys = [] } = told
  if (family === undefined) {
    if (passwordHash !== undefined || sshKeys.length > 0) {
      inside.warn('the container is unmanaged: neither password nor keys of root were set')
    }
    return
  }
  using tree = new Tree(inside.rootfs, inside.owner)
  if (passwordHash !== undefined) await setRootPassword(tree, passwordHash)
  if (sshKeys.length > 0) await authorizeRoot(tree, sshKeys)
  await setLocale(tree, family)
  await switchOffUnits(tree)
  await becomeAnother(host, tree, told)
  await follow(tree, inside, family, told)
}

/** For a container that was made from another one: it must not be taken for that. */
export async function setUpCopy(host: Host, inside: Inside, told: Told): Promise<void> {
  const family = familyOf(inside.ostype)
  if (family === undefined) return
  using tree = new Tree(inside.rootfs, inside.owner)
  await becomeAnother(host, tree, told)
  await follow(tree, inside, family, told)
}

/**
 * Before every start. What did not change is not written.
 * @throws Fault `conflict` when the system inside is another than the configuration says
 */
export async function setUpForStart(inside: Inside, told: Told): Promise<void> {
  const family = familyOf(inside.ostype)
  if (family === undefined) return
  using tree = new Tree(inside.rootfs, inside.owner)
  const found = await detectOsType(tree)
  if (familyOf(found) !== family) {
    throw new Fault('conflict', `ostype is '${inside.ostype}', but the system inside is '${found}'`, {
      remedy: `Set ostype to '${found}', or to 'unmanaged' to have nothing in it changed.`,
    })
  }
  await follow(tree, inside, family, told)
}

async function becomeAnother(host: Host, tree: Tree, told: Told): Promise<void> {
  await forgetMachineId(tree)
  await renewHostKeys(host, tree, namesOf(told).short)
}

async function follow(tree: Tree, inside: Inside, family: Family, told: Told): Promise<void> {
  requireSound(told)
  await setHostname(tree, told)
  await setHosts(tree, told)
  const files = await setNetwork(tree, family, told)
  if (files === undefined && told.nics.length > 0) {
    inside.warn('nothing in the container is known to set up network cards: their addresses were not written')
  }
  await setResolver(tree, told.dns)
  if (told.timezone !== undefined) await setTimezone(tree, told.timezone)
  await setTerminals(tree, told.ttys)
}

/** Each becomes part of a line in some file, and must not become two. */
function requireSound({ hostname, nics, dns, ttys }: Told): void {
  const bad =
    (/^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,253}[A-Za-z0-9])?$/.test(hostname) ? undefined : hostname) ??
    nics.map(({ name }) => name).find((name) => !/^[\w.-]{1,15}$/.test(name)) ??
    [...nics.flatMap(addressesOf), ...dns.servers].find((address) => isIP(address) === 0) ??
    dns.search.find((domain) => !/^[\w.-]{1,253}$/.test(domain)) ??
    (Number.isInteger(ttys) && ttys >= 0 && ttys <= 6 ? undefined : String(ttys))
  if (bad !== undefined) throw new Fault('invalid', `'${bad.slice(0, 100)}' cannot be told to a container`)
}

function addressesOf(nic: ToldNic): string[] {
  return fixedOf(nic).flatMap(({ address, gateway }) => [address, ...(gateway === undefined ? [] : [gateway])])
}
