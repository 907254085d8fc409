/**
 * Looks at the machine before anything is made on it: what is there, what that means, and which way is
 * taken instead where something is not. Nothing here changes the machine; the verdict on KVM is kept in
 * the cache, because it takes half a second.
 *
 * `fallback` means the lab works in another way; only `missing` stops it. A check that cannot look counts as
 * missing and says why: "could not find out" is not "all is well".
 */
import { existsSync } from 'node:fs'
import { access, constants, open, stat } from 'node:fs/promises'
import { createServer } from 'node:net'
import { arch, release } from 'node:os'
import { dirname, join } from 'node:path'
import { GiB, humanSize } from '#base/bytes.ts'
import type { Clock } from '#base/clock.ts'
import { isFault, messageOf } from '#base/fault.ts'
import { Cgroups } from '#host/cgroups/cgroup.ts'
import { freeBytes } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { accelerator } from '#host/qemu/kvm.ts'
import { memoryCounters } from '#host/programs/proc.ts'
import type { Settings } from '#settings.ts'
import type { Text } from './terminal.ts'

export interface Check {
  readonly name: Text
  readonly state: 'ok' | 'fallback' | 'missing'
  /** What was seen. */
  readonly found: Text
  /** What follows from it. */
  readonly means: Text
  /** What is done instead. */
  readonly fallback?: Text
}

export interface Machine {
  readonly host: Host
  readonly settings: Settings
  readonly clock: Clock
  /** The node runs already and holds the port. */
  readonly isRunning: boolean
}

/** Every check, in the order a person reads them. */
export async function preflight(machine: Machine): Promise<Check[]> {
  const looked = await Promise.all([
    guarded(names.virtualization, () => checkVirtualization(machine)),
    guarded(names.containers, () => checkContainers(machine.host)),
    guarded(names.memory, async () => judgeMemory((await memoryCounters()).availableBytes)),
    guarded(names.disk, async () => judgeDisk(await freeBytes(await existingParent(machine.settings.stateDir)))),
    guarded(names.ports, () => checkPort(machine)),
    guarded(names.tap, checkTap),
    guarded(names.filter, () => checkFilter(machine.host)),
    guarded(names.groups, checkGroups),
    guarded(names.loop, checkLoop),
    guarded(names.clock, () => checkClock(machine.clock)),
  ])
  return [judgeArchitecture(arch(), release()), judgeRoot(process.getuid?.() ?? -1), ...looked]
}

export const names = {
  architecture: { en: 'processor', ja: 'プロセッサー' },
  root: { en: 'rights', ja: '権限' },
  virtualization: { en: 'hardware virtualization', ja: 'ハードウェア仮想化' },
  containers: { en: 'containers (LXC)', ja: 'コンテナ (LXC)' },
  memory: { en: 'memory', ja: 'メモリー' },
  disk: { en: 'disk space', ja: 'ディスク空き容量' },
  ports: { en: 'port of the API', ja: 'API のポート' },
  tap: { en: 'guest network cards', ja: 'ゲストのネットワークカード' },
  filter: { en: 'packet filter', ja: 'パケットフィルター' },
  groups: { en: 'resource limits', ja: '資源の制限' },
  loop: { en: 'loop devices', ja: 'ループデバイス' },
  clock: { en: 'clock', ja: '時計' },
} as const satisfies Readonly<Record<string, Text>>

async function guarded(name: Text, look: () => Promise<Check>): Promise<Check> {
  try {
    return await look()
  } catch (error) {
    const why = messageOf(error)
    const remedy = isFault(error) && error.remedy !== undefined ? error.remedy : undefined
    return {
      name,
      state: 'missing',
      found: { en: why, ja: why },
      means: { en: remedy ?? 'the lab needs it', ja: remedy ?? 'ラボに必要です' },
    }
  }
}

export function judgeArchitecture(architecture: string, kernel: string): Check {
  const isKnown = architecture === 'x64'
  return {
    name: names.architecture,
    state: isKnown ? 'ok' : 'missing',
    found: { en: `${architecture}, Linux ${kernel}`, ja: `${architecture}、Linux ${kernel}` },
    means: isKnown
      ? { en: "runs the lab's guest", ja: 'ラボ用ゲストを実行できます' }
      : { en: "the lab's guest is made for x64 alone; use such a machine", ja: 'ラボ用ゲストは x64 専用です' },
  }
}

export function judgeRoot(uid: number): Check {
  const isRoot = uid === 0
  return {
    name: names.root,
    state: isRoot ? 'ok' : 'missing',
    found: { en: isRoot ? 'root' : `user ${uid}`, ja: isRoot ? 'root' : `ユーザー ${uid}` },
    means: isRoot
      ? {
          en: 'networks can be made; guests run without rights',
          ja: 'ネットワークを作成可能。ゲストは権限なしで動きます',
        }
      : { en: 'run it as root: sudo ./hako lab', ja: 'root で実行してください: sudo ./hako lab' },
  }
}

async function checkVirtualization({ host, settings }: Machine): Promise<Check> {
  const { accelerator: kind, reason } = await accelerator({ host, cacheDir: settings.cacheDir })
  const seen = reason.replace(/; software emulation$/, '')
  const check = { name: names.virtualization, found: { en: seen, ja: seen } }
  if (kind === 'kvm')
    return { ...check, state: 'ok', means: { en: 'guests run at full speed', ja: 'ゲストは全速で動きます' } }
  return {
    ...check,
    state: 'fallback',
    means: { en: 'KVM cannot run guests here', ja: 'ここでは KVM でゲストを動かせません' },
    fallback: { en: 'software emulation (slower, same result)', ja: 'ソフトウェアエミュレーション (低速、結果は同じ)' },
  }
}

async function checkContainers(host: Host): Promise<Check> {
  try {
    const { stdout } = await host.run(['lxc-start', '--version'])
    return {
      name: names.containers,
      state: 'ok',
      found: { en: `LXC ${stdout.trim()}`, ja: `LXC ${stdout.trim()}` },
      means: { en: 'containers can run', ja: 'コンテナを実行できます' },
    }
  } catch (error) {
    if (!isFault(error, 'missing')) throw error
    return {
      name: names.containers,
      state: 'fallback',
      found: { en: 'LXC is not installed', ja: 'LXC が入っていません' },
      means: { en: 'containers cannot run', ja: 'コンテナは実行できません' },
      fallback: { en: 'virtual machines only', ja: '仮想マシンのみ' },
    }
  }
}

/** The guest of the lab and the one a drill restores, with their QEMUs, and the node itself. */
const memoryNeeded = 1 * GiB

export function judgeMemory(availableBytes: number): Check {
  const isEnough = availableBytes >= memoryNeeded
  const [free, needed] = [humanSize(availableBytes), humanSize(memoryNeeded)]
  return {
    name: names.memory,
    state: isEnough ? 'ok' : 'missing',
    found: { en: `${free} available`, ja: `空き ${free}` },
    means: isEnough
      ? { en: 'enough for the guest and its restored twin', ja: 'ゲストと復元した複製に十分です' }
      : {
          en: `${needed} are needed: end something large`,
          ja: `${needed} 必要です。大きなプログラムを終了してください`,
        },
  }
}

const diskNeeded = 1 * GiB

export function judgeDisk(freeDiskBytes: number): Check {
  const isEnough = freeDiskBytes >= diskNeeded
  const [free, needed] = [humanSize(freeDiskBytes), humanSize(diskNeeded)]
  return {
    name: names.disk,
    state: isEnough ? 'ok' : 'missing',
    found: { en: `${free} free`, ja: `空き ${free}` },
    means: isEnough
      ? { en: 'enough for disks, backups and evidence', ja: 'ディスク、バックアップ、証跡に十分です' }
      : { en: `${needed} are needed below /var`, ja: `/var に ${needed} 必要です` },
  }
}

async function existingParent(path: string): Promise<string> {
  let place = path
  while (!existsSync(place)) place = dirname(place)
  return place
}

async function checkPort({ settings, isRunning }: Machine): Promise<Check> {
  const { apiHost, apiPort } = settings
  const place = `${apiHost}:${apiPort}`
  const found = {
    en: isRunning ? `${place}, this lab` : `${place} is free`,
    ja: isRunning ? `${place} (このラボ)` : `${place} は空き`,
  }
  if (isRunning || (await isFree(apiHost, apiPort))) {
    return {
      name: names.ports,
      state: 'ok',
      found,
      means: { en: 'the API is served there', ja: 'API はここで提供されます' },
    }
  }
  return {
    name: names.ports,
    state: 'missing',
    found: { en: `${place} is in use`, ja: `${place} は使用中` },
    means: {
      en: 'end what listens there, or choose another: ./hako lab --port 8106',
      ja: '使用中のプログラムを終了するか、別のポートを指定してください: ./hako lab --port 8106',
    },
  }
}

/** Whether nobody listens there: found out by listening for a moment. */
export function isFree(host: string, port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EADDRINUSE' ? resolve(false) : reject(error),
    )
    server.listen(port, host, () => server.close(() => resolve(true)))
  })
}

async function checkTap(): Promise<Check> {
  const device = await open('/dev/net/tun', 'r+')
  await device.close()
  return {
    name: names.tap,
    state: 'ok',
    found: { en: '/dev/net/tun opens', ja: '/dev/net/tun を開けます' },
    means: { en: 'guests get network cards', ja: 'ゲストにネットワークカードを付けられます' },
  }
}

async function checkFilter(host: Host): Promise<Check> {
  await host.run(['nft', 'list', 'tables'])
  const { stdout } = await host.run(['nft', '--version'])
  const version = /v(\d+(\.\d+)*)/.exec(stdout)?.[0] ?? stdout.trim()
  return {
    name: names.filter,
    state: 'ok',
    found: { en: `nftables ${version}`, ja: `nftables ${version}` },
    means: { en: 'guests reach out by NAT and are not reached', ja: 'ゲストは NAT で外へ出られ、外からは届きません' },
  }
}

async function checkGroups(): Promise<Check> {
  const { layout } = await Cgroups.detect()
  const tree = layout.version === 'v1' ? Object.keys(layout.trees).join(', ') : layout.controllers.join(', ')
  return {
    name: names.groups,
    state: 'ok',
    found: { en: `cgroup ${layout.version}: ${tree}`, ja: `cgroup ${layout.version}: ${tree}` },
    means: { en: 'guests are limited and can be ended surely', ja: 'ゲストの資源を制限し、確実に終了できます' },
  }
}

async function checkLoop(): Promise<Check> {
  await access('/dev/loop-control', constants.R_OK | constants.W_OK)
  return {
    name: names.loop,
    state: 'ok',
    found: { en: '/dev/loop-control is there', ja: '/dev/loop-control があります' },
    means: { en: "the guest's image can be built", ja: 'ゲストのイメージを作れます' },
  }
}

/** Signs that somebody keeps the clock right: systemd-timesyncd says so itself, the others at least run. */
const timeKeepers = ['/run/systemd/timesync/synchronized', '/run/chrony/chronyd.pid', '/run/ntpd.pid']

async function checkClock(clock: Clock): Promise<Check> {
  const project = await stat(join(import.meta.dirname, '../../package-lock.json'))
  return judgeClock(clock.now(), project.mtimeMs, timeKeepers.some(existsSync))
}

export function judgeClock(nowMs: number, newestFileMs: number, isSynchronized: boolean): Check {
  const text = new Date(nowMs).toISOString().replace(/\.\d+Z$/, 'Z')
  const check = { name: names.clock, found: { en: text, ja: text } }
  const isBehind = nowMs < newestFileMs - 24 * 3_600_000
  if (isSynchronized && !isBehind) {
    return {
      ...check,
      state: 'ok',
      means: { en: 'synchronized: times in the evidence hold', ja: '同期済み: 証跡の時刻は信頼できます' },
    }
  }
  return {
    ...check,
    state: 'fallback',
    means: isBehind
      ? {
          en: 'it is behind this program’s own files: set it',
          ja: 'このプログラムのファイルより遅れています。時刻を合わせてください',
        }
      : { en: 'not known to be synchronized', ja: '同期されているか不明です' },
    fallback: {
      en: 'evidence carries this clock; durations do not depend on it',
      ja: '証跡にはこの時計の時刻を記録。所要時間には影響しません',
    },
  }
}
