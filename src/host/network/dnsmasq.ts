/**
 * DHCP for one bridge, by a dnsmasq of its own.
 *
 * The process belongs to the bridge, not to the daemon that started it: it outlives that daemon and is
 * found again by its command line, which carries the path of its pid file. A start with the same wish
 * adopts what runs; with another wish it replaces it. It answers no DNS, reads no file of the machine,
 * and gives up root as soon as its socket is open.
 */
import { readdir, readFile, readlink, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { systemClock, waitFor } from '#base/clock.ts'
import { Fault } from '#base/fault.ts'
import { spawnDetached } from '../exec.ts'
import { codeOf, makeDirectory, readIfPresent } from '../files.ts'
import type { Argv } from '../host.ts'
import { inNetns, type NetworkPlace } from './netns.ts'
import { commandLineOf, endProcess, findProcesses, isAlive, startTimeOf } from '../programs/proc.ts'

export interface DhcpWish extends NetworkPlace {
  /** Bridge to serve; it has its address already. */
  readonly bridge: string
  /** First and last address to give out. */
  readonly range: readonly [string, string]
  readonly netmask: string
  /** What guests use as their way out; none on a network without one. */
  readonly router?: string | undefined
  /** Name servers guests are told about. */
  readonly nameServers?: readonly string[]
  /** Where pid, leases and log go. */
  readonly runDir: string
  /** Names the files when two bridges of one name exist in different namespaces. */
  readonly label: string
}

export interface Lease {
  /** Lower case, with colons. */
  readonly mac: string
  readonly ip: string
  /** Seconds since 1970; 0 means never. */
  readonly expires: number
  readonly name: string | undefined
}

const LEASE_TIME = '12h'
const START_MS = 10_000
/** Port 67 as `/proc/net/udp` spells it. */
const DHCP_PORT = '0043'

function filesOf({ runDir, label }: Pick<DhcpWish, 'runDir' | 'label'>) {
  const path = (suffix: string) => join(runDir, `dnsmasq-${label}.${suffix}`)
  return { pid: path('pid'), leases: path('leases'), log: path('log') }
}

/** The command line, pure: the same wish gives the same words, by which the process is known again. */
export function dnsmasqArgv(wish: DhcpWish, user: string): Argv {
  const files = filesOf(wish)
  const { nameServers = [] } = wish
  return [
    'dnsmasq',
    '--conf-file=/dev/null',
    '--keep-in-foreground',
    `--user=${user}`,
    '--group=nogroup',
    `--pid-file=${files.pid}`,
    `--dhcp-leasefile=${files.leases}`,
    '--log-facility=-',
    '--quiet-dhcp',
    '--port=0',
    '--no-hosts',
    '--no-resolv',
    `--interface=${wish.bridge}`,
    '--except-interface=lo',
    '--bind-interfaces',
    `--dhcp-range=${wish.range.join(',')},${wish.netmask},${LEASE_TIME}`,
    // Without its answer a guest waits: no ping before an offer, and no other server is expected here.
    '--no-ping',
    '--dhcp-authoritative',
    '--dhcp-rapid-commit',
    // An option without a value withholds what dnsmasq would say by itself: itself as router.
    wish.router === undefined ? '--dhcp-option=option:router' : `--dhcp-option=option:router,${wish.router}`,
    ...(nameServers.length === 0 ? [] : [`--dhcp-option=option:dns-server,${nameServers.join(',')}`]),
  ]
}

/**
 * Makes sure that exactly this service runs, and returns when it listens.
 * @throws Fault `failed` with dnsmasq's last words when it ends at once, `missing` when it is not installed.
 */
export async function ensureDhcp(wish: DhcpWish): Promise<{ pid: number }> {
  const argv = dnsmasqArgv(wish, await unprivilegedUser())
  const [running] = await processesOf(wish)
  if (running !== undefined) {
    if ((await commandLineOf(running)).join('\0') === argv.join('\0')) return { pid: running }
    await stopDhcp(wish)
  }
  await makeDirectory(wish.runDir)
  const files = filesOf(wish)
  for (const path of [files.log, files.pid]) await rm(path, { force: true })
  const pid = await spawnDetached(inNetns(wish.netns, argv), { outputFile: files.log })
  const startTime = await startTimeOf(pid)
  await waitFor(
    async () => {
      if (startTime === undefined || !(await isAlive(pid, startTime))) throw await lastWords(wish)
      // It opens its socket before it looks for the bridge, and says its pid when nothing can keep it any more.
      return (await listens(pid)) && Number(await readIfPresent(files.pid)) === pid
    },
    { what: `start of dnsmasq for the bridge '${wish.bridge}'`, timeoutMs: START_MS, clock: systemClock },
  )
  return { pid }
}

/** Ends the service; its leases stay, so that a guest gets its address again. Idempotent. */
export async function stopDhcp(which: Pick<DhcpWish, 'runDir' | 'label'>): Promise<void> {
  for (const pid of await processesOf(which)) await endProcess(pid, await startTimeOf(pid), { graceMs: 2_000 })
  await rm(filesOf(which).pid, { force: true })
}

/** Ends the service and forgets its leases. Idempotent. */
export async function removeDhcp(which: Pick<DhcpWish, 'runDir' | 'label'>): Promise<void> {
  await stopDhcp(which)
  const { leases, log } = filesOf(which)
  await Promise.all([rm(leases, { force: true }), rm(log, { force: true })])
}

/** Ends every service that keeps its files in `runDir`, remembered or not. */
export async function removeAllDhcp(runDir: string): Promise<void> {
  const prefix = `--pid-file=${join(runDir, 'dnsmasq-')}`
  const running = await findProcesses((argv) => argv.some((word) => word.startsWith(prefix)))
  for (const pid of running) await endProcess(pid, await startTimeOf(pid), { graceMs: 2_000 })
  const names = await readdir(runDir).catch(noneIfAbsent)
  for (const name of names.filter((file) => file.startsWith('dnsmasq-'))) await rm(join(runDir, name), { force: true })
}

/** Whether a service for this place runs now. */
export async function isDhcpRunning(which: Pick<DhcpWish, 'runDir' | 'label'>): Promise<boolean> {
  return (await processesOf(which)).length > 0
}

/** What it has given out. */
export async function leasesOf(which: Pick<DhcpWish, 'runDir' | 'label'>): Promise<Lease[]> {
  return parseLeases((await readIfPresent(filesOf(which).leases)) ?? '')
}

/** Lines of `expiry mac ip name client-id`; those of DHCPv6 follow a line `duid …` and are left out. */
export function parseLeases(text: string): Lease[] {
  const [version4 = ''] = text.split(/^duid /m)
  return version4
    .split('\n')
    .map((line) => line.split(' '))
    .filter((words) => words.length >= 4)
    .map(([expires, mac = '', ip = '', name]) => ({
      mac: mac.toLowerCase(),
      ip,
      expires: Number(expires),
      name: name === '*' ? undefined : name,
    }))
}

/** Normally one. By the command line, not by the pid file, which a crash leaves behind with a number that now is another's. */
async function processesOf(which: Pick<DhcpWish, 'runDir' | 'label'>): Promise<number[]> {
  const mark = `--pid-file=${filesOf(which).pid}`
  return findProcesses((argv) => argv.includes(mark) && argv.includes('--conf-file=/dev/null'))
}

/** Whether one of the process's own sockets is UDP port 67. */
async function listens(pid: number): Promise<boolean> {
  try {
    const table = await readFile(`/proc/${pid}/net/udp`, 'utf8')
    const inodes = new Set(dhcpInodes(table))
    const descriptors = await readdir(`/proc/${pid}/fd`)
    const targets = await Promise.all(descriptors.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')))
    return targets.some((target) => inodes.has(/^socket:\[(\d+)\]$/.exec(target)?.[1] ?? ''))
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT' || codeOf(cause) === 'ESRCH') return false
    throw cause
  }
}

/** Inode numbers of the sockets bound to the DHCP server's port. */
export function dhcpInodes(table: string): string[] {
  return table
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[1]?.endsWith(`:${DHCP_PORT}`))
    .map((fields) => fields[9] ?? '')
}

async function lastWords(wish: DhcpWish): Promise<Fault> {
  const said = ((await readIfPresent(filesOf(wish).log)) ?? '').trim().split('\n').at(-1)
  return new Fault('failed', `dnsmasq for the bridge '${wish.bridge}' ended at once: ${said || 'it said nothing'}`)
}

/** Debian's package brings a user for it; `nobody` is everywhere. */
async function unprivilegedUser(): Promise<string> {
  return /^dnsmasq:/m.test(await readFile('/etc/passwd', 'utf8')) ? 'dnsmasq' : 'nobody'
}

function noneIfAbsent(cause: unknown): string[] {
  if (codeOf(cause) === 'ENOENT') return []
  throw cause
}
