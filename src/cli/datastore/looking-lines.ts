/** The commands of `hako datastore` that look at what is there, and at what is written beside it. */
import type { LocalOption } from '../local.ts'
import type { Line } from './line.ts'

type Options = Readonly<Record<string, LocalOption>>

export function lookingLines(opening: Options): readonly Line[] {
  return [...listing(opening), ...comparing(opening), ...marking]
}

function listing(opening: Options): readonly Line[] {
  return [
    {
      words: ['list'],
      takes: ['dir', 'backup…?'],
      en: 'Backups in a datastore, oldest first: all, or those of a guest or namespace; needs no key, and with one says how much is in each.',
      ja: 'データストアのバックアップ一覧 (古い順)。ゲストや名前空間で絞り込める。鍵は不要、あれば容量も示す。',
      options: opening,
      examples: ['datastore list /srv/backups', 'datastore list /srv/backups host/web -o json'],
      columns: ['backup', 'size', 'new-data', 'finished', 'verified', 'protected', 'damage', 'notes'],
      id: 'backup',
      act: async ([dir = '', ...names], parsed, terminal) => {
        const rows = await (await import('./point-acts.ts')).listRows(dir, names, parsed, terminal)
        const { hasKey } = await import('./opening.ts')
        const last = ['verified', 'protected', 'damage', 'notes']
        return { rows, columns: ['backup', ...(hasKey(parsed) ? ['size', 'new-data'] : ['finished']), ...last] }
      },
    },
    {
      words: ['show'],
      takes: ['dir', 'backup'],
      en: 'Disks, trees and files of a backup; host/web means the newest of it.',
      ja: 'バックアップの中身。host/web のように書くと最新のもの。',
      options: opening,
      examples: ['datastore show /srv/backups host/web'],
      columns: ['part', 'size', 'data', 'new-data'],
      id: 'part',
      act: async ([dir = '', name = ''], parsed, terminal) => ({
        rows: await (await import('./acts.ts')).showRows(dir, name, parsed, terminal),
      }),
    },
    {
      words: ['stats'],
      takes: ['dir'],
      en: 'How much lies in a datastore, and of how many backups; with a key also how much that is without deduplication.',
      ja: 'データストアの使用量とバックアップ数。鍵があれば重複排除前の量も示す。',
      options: opening,
      examples: ['datastore stats /srv/backups', 'datastore stats /srv/backups --key-file /root/key -o json'],
      act: async ([dir = ''], parsed, terminal) => ({
        rows: await (await import('./point-acts.ts')).stats(dir, parsed, terminal),
      }),
    },
  ]
}

function comparing(opening: Options): readonly Line[] {
  return [
    {
      words: ['find'],
      takes: ['dir', 'pattern', 'backup…?'],
      en: 'Which backups have a file: each version of what fits a pattern as --exclude takes it, with the first and last backup it is in.',
      ja: 'どのバックアップにファイルがあるかを探す。--exclude と同じ書式のパターンに合うものを版ごとに、最初と最後のバックアップとともに示す。',
      options: opening,
      examples: ["datastore find /srv/backups '*.odt'", 'datastore find /srv/backups /etc/fstab host/web -o json'],
      columns: ['path', 'size', 'mtime', 'backups', 'backup'],
      id: 'backup',
      act: async ([dir = '', pattern = '', ...names], parsed, terminal) => ({
        rows: await (await import('./comparing.ts')).findRows([dir, pattern, ...names], parsed, terminal),
      }),
    },
    {
      words: ['diff'],
      takes: ['dir', 'backup', 'backup', 'path?'],
      en: 'What came, went or changed from one backup to another: files by size, times, mode and owner, disks by how much of them.',
      ja: '2 つのバックアップの差。ファイルはサイズ・時刻・モード・所有者で、ディスクは変わった量で比べる。',
      options: opening,
      examples: [
        'datastore diff /srv/backups host/home/2026-01-01T00:00:00Z host/home',
        'datastore diff /srv/backups host/home/2026-01-01 host/home /anna -o json',
      ],
      columns: ['change', 'part', 'path', 'size', 'was', 'differs', 'what'],
      id: 'path',
      act: async ([dir = '', before = '', after = '', path], parsed, terminal) => ({
        rows: await (await import('./comparing.ts')).diffRows([dir, before, after, path], parsed, terminal),
      }),
    },
  ]
}

const marking: readonly Line[] = [
  {
    words: ['set'],
    takes: ['dir', 'backup'],
    en: 'Write notes beside a backup, or protect it from being removed; needs no key, and notes can be read without one.',
    ja: 'バックアップにメモを付ける、または削除から保護する。鍵は不要で、メモは鍵なしで読める。',
    options: {
      notes: { en: "For people; '' takes them away.", ja: "メモ。'' で消す。" },
      protected: {
        en: 'Neither prune nor remove takes it away.',
        ja: 'prune でも remove でも削除されない。',
        isFlag: true,
        isSwitch: true,
      },
    },
    examples: [
      'datastore set /srv/backups host/web --notes "before the upgrade" --protected',
      'datastore set /srv/backups host/web/2026-01-01T00:00:00Z --no-protected',
    ],
    act: async ([dir = '', name = ''], parsed) => ({
      rows: await (await import('./point-acts.ts')).setMarks(dir, name, parsed),
    }),
  },
]
