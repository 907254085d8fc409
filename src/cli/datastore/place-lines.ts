/** Commands about places: offering them to others, and trying what they withstand. */
import type { Line } from './line.ts'

export const placeLines: readonly Line[] = [
  {
    words: ['canary'],
    takes: ['dir'],
    en: 'Try to destroy a canary with the credentials backups are made with: it must be refused, or this exits with 7.',
    ja: 'バックアップの認証情報でカナリアの破壊を試みる。拒否されるべきもので、できてしまえば終了コード 7。',
    examples: ['datastore canary s3://backups/site --endpoint https://s3.example.org'],
    columns: ['attempt', 'refused', 'until'],
    id: 'attempt',
    act: async ([dir = ''], parsed) => (await import('./care-acts.ts')).canary(dir, parsed),
  },
  {
    words: ['serve'],
    takes: ['folder'],
    en: 'Offer a datastore, or a folder of them, to others over TLS, until it is stopped.',
    ja: 'データストア、またはそのフォルダーを、停止するまで TLS で提供する。',
    options: {
      listen: {
        en: 'Address and port; 127.0.0.1:8017 when absent.',
        ja: 'アドレスとポート。省略時は 127.0.0.1:8017。',
      },
      'token-file': {
        en: 'Who may do what, as hako datastore token writes it; read anew when it changes.',
        ja: '誰が何をできるかのファイル (hako datastore token が書く)。変更は自動で反映される。',
      },
      certificate: {
        en: 'PEM of the certificate; when absent one is made and kept beside the tokens.',
        ja: '証明書の PEM。省略時は作成してトークンの横に保存する。',
      },
      key: { en: 'PEM of its key.', ja: 'その秘密鍵の PEM。' },
    },
    examples: ['datastore serve /srv/backups --listen 0.0.0.0:8017 --token-file /etc/hako-tokens'],
    act: async ([folder = ''], parsed, terminal) => (await import('./serving.ts')).serve(folder, parsed, terminal),
  },
  {
    words: ['token'],
    takes: ['file', 'name'],
    en: 'Make a token, put its hash and rights into a file for serve, and print it: it is not shown again.',
    ja: 'トークンを作り、ハッシュと権限を serve 用のファイルに加えて出力する。二度と表示されない。',
    options: {
      rights: {
        en: 'read, write (it adds, and neither replaces nor removes), delete; joined by commas.',
        ja: 'read、write (追加のみ。置換と削除は不可)、delete をコンマ区切りで。',
      },
    },
    examples: ['datastore token /etc/hako-tokens site-b --rights read,write'],
    act: async ([file = '', name = ''], parsed, terminal) =>
      (await import('./serving.ts')).makeToken(file, name, parsed, terminal),
  },
]
