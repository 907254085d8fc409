/** The commands of `hako datastore` about files in backups. */
import type { LocalOption } from '../local.ts'
import type { Line } from './line.ts'

export const treeOption: LocalOption = {
  en: 'Which of the trees; rootfs or the first when absent.',
  ja: 'ツリー名。省略時は rootfs または最初のもの。',
}

export function fileLines(opening: Readonly<Record<string, LocalOption>>): readonly Line[] {
  return [
    {
      words: ['files'],
      takes: ['dir', 'backup', 'path?'],
      en: 'What is in a folder of a backup of files; nothing is restored.',
      ja: 'ファイルのバックアップ内のフォルダの一覧。復元はしない。',
      options: { ...opening, tree: treeOption },
      examples: ['datastore files /srv/backups host/home', 'datastore files /srv/backups host/home /anna -o json'],
      columns: ['mode', 'uid', 'gid', 'size', 'mtime', 'name', 'target'],
      id: 'path',
      act: async ([dir = '', name = '', path], parsed, terminal) => ({
        rows: await (await import('./file-acts.ts')).fileRows([dir, name, path], parsed, terminal),
      }),
    },
    {
      words: ['get'],
      takes: ['dir', 'backup', 'path', 'to?'],
      en: 'Fetch a file of a backup as it is, or a folder as an archive; - for standard output.',
      ja: 'バックアップからファイルをそのまま、フォルダをアーカイブとして取り出す。- は標準出力。',
      options: {
        ...opening,
        tree: treeOption,
        form: {
          en: 'Of the archive of a folder: tar (when absent), tar.zst or zip.',
          ja: 'フォルダのアーカイブ形式: tar (省略時)、tar.zst、zip。',
        },
      },
      examples: [
        'datastore get /srv/backups host/home /anna/letter.odt',
        'datastore get /srv/backups host/home /anna - | tar -tv',
      ],
      act: async ([dir = '', name = '', path = '', to], parsed, terminal) =>
        (await import('./file-acts.ts')).fetch([dir, name, path, to], parsed, terminal),
    },
    {
      words: ['export'],
      takes: ['dir', 'backup', 'to?'],
      en: 'Write the backup of a guest as an archive other platforms read (vzdump-lxc, vzdump-qemu); - for standard output.',
      ja: 'ゲストのバックアップを他の基盤で読めるアーカイブ (vzdump-lxc、vzdump-qemu) に書き出す。- は標準出力。',
      options: {
        ...opening,
        format: {
          en: 'tar.zst or tar for a container, vma.zst or vma for a virtual machine; packed when absent.',
          ja: 'コンテナは tar.zst か tar、仮想マシンは vma.zst か vma。省略時は圧縮。',
        },
      },
      examples: [
        'datastore export /srv/backups vm/100',
        'datastore export /srv/backups ct/101 /mnt/usb --format tar.zst',
      ],
      act: async ([dir = '', name = '', to], parsed, terminal) =>
        (await import('./file-acts.ts')).exportArchive([dir, name, to], parsed, terminal),
    },
  ]
}
