/** What parts, lanes, states and edges are called in the diagram. */
import type { EdgeType, Lane, PartKind, PartState } from '#views/architecture/graph.ts'
import type { Language } from '../text.ts'

interface Word {
  readonly en: string
  readonly ja: string
}

const word = (en: string, ja: string): Word => ({ en, ja })

export const laneWords: Readonly<Record<Lane, Word>> = {
  guests: word('Guests', 'ゲスト'),
  storage: word('Storage and network', 'ストレージとネットワーク'),
  host: word('Host and virtualization base', 'ホストと仮想化基盤'),
  hardware: word('Hardware', 'ハードウェア'),
}

/** One of a kind, and several. */
const kindWords: Readonly<Record<PartKind, readonly [one: Word, more: Word]>> = {
  processors: [word('Processors', 'プロセッサー'), word('Processors', 'プロセッサー')],
  memory: [word('Memory', 'メモリー'), word('Memory', 'メモリー')],
  disk: [word('Disk', 'ディスク'), word('Disks', 'ディスク')],
  card: [word('Network card', 'ネットワークカード'), word('Network cards', 'ネットワークカード')],
  kernel: [word('Linux kernel', 'Linux カーネル'), word('Linux kernel', 'Linux カーネル')],
  virtualization: [word('Virtualization', '仮想化支援'), word('Virtualization', '仮想化支援')],
  client: [word('Client', 'クライアント'), word('Clients', 'クライアント')],
  qemu: [word('QEMU', 'QEMU'), word('QEMU', 'QEMU')],
  lxc: [word('LXC', 'LXC'), word('LXC', 'LXC')],
  lxcfs: [word('LXCFS', 'LXCFS'), word('LXCFS', 'LXCFS')],
  daemon: [word('Daemon', 'デーモン'), word('Daemon', 'デーモン')],
  front: [word('Front (TLS, API)', 'フロント (TLS・API)'), word('Front (TLS, API)', 'フロント (TLS・API)')],
  state: [word('State store', '状態ストア'), word('State store', '状態ストア')],
  task: [word('Tasks', 'タスク'), word('Tasks', 'タスク')],
  storage: [word('Storage', 'ストレージ'), word('Storages', 'ストレージ')],
  datastore: [word('Datastore', 'データストア'), word('Datastores', 'データストア')],
  bridge: [word('Bridge', 'ブリッジ'), word('Bridges', 'ブリッジ')],
  vm: [word('VM', '仮想マシン'), word('Virtual machines', '仮想マシン')],
  ct: [word('Container', 'コンテナ'), word('Containers', 'コンテナ')],
  volume: [word('Volume', 'ボリューム'), word('Volumes', 'ボリューム')],
  nic: [word('NIC', 'NIC'), word('NICs', 'NIC')],
}

export const stateWords: Readonly<Record<PartState, Word & { readonly sign: string }>> = {
  ok: { ...word('running, usable', '稼働・使用可'), sign: '●' },
  off: { ...word('off, not used', '停止・未使用'), sign: '○' },
  warning: { ...word('works, look at it', '要確認'), sign: '▲' },
  failed: { ...word('failed', '障害'), sign: '✕' },
  unknown: { ...word('unknown', '不明'), sign: '?' },
}

export const edgeWords: Readonly<Record<EdgeType, Word>> = {
  'runs on': word('runs on', '上で動く'),
  'stores on': word('stores on', '保存先'),
  'connects to': word('connects to', '接続先'),
  'backs up to': word('backs up to', 'バックアップ先'),
  'depends on': word('depends on', '依存先'),
}

export function kindWord(kind: PartKind, isMany: boolean, language: Language): string {
  return kindWords[kind][isMany ? 1 : 0][language]
}

/** `2 ok, 1 off` as the states of parts drawn as one are counted. */
export function countsIn(detail: string, language: Language): string {
  if (language === 'en') return detail.replaceAll(/\bok\b/g, 'up')
  const states: Readonly<Record<string, string>> = {
    ok: '稼働',
    off: '停止',
    warning: '要確認',
    failed: '障害',
    unknown: '不明',
  }
  return detail.replaceAll(
    /(\d+) (ok|off|warning|failed|unknown)/g,
    (_, count: string, state: string) => `${states[state]} ${count}`,
  )
}

export function restWord(count: number, language: Language): string {
  return language === 'ja' ? `他 ${count} 件` : `${count} more`
}
