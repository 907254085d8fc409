/** Options that say how a place is reached. */
import type { LocalOption, LocalText } from '../local.ts'

type Options = Readonly<Record<string, LocalOption>>

function under(heading: LocalText, options: Options): Options {
  return Object.fromEntries(Object.entries(options).map(([name, option]) => [name, { ...option, heading }]))
}

const heading = { en: 'With s3:// or https://', ja: 's3:// または https:// のとき' }
export const reaching = under(heading, {
  'token-file': {
    en: 'For https://host:port/name, as hako datastore serve offers it: file with the token.',
    ja: 'hako datastore serve が提供する https://host:port/name のとき: トークンのファイル。',
  },
  fingerprint: {
    en: 'For https://: SHA-256 of the certificate, as hako datastore serve shows it.',
    ja: 'https:// のとき: hako datastore serve が表示する証明書の SHA-256。',
  },
  endpoint: {
    en: 'For s3://bucket/prefix: address of the server; that of the region when absent.',
    ja: 's3://bucket/prefix のとき: サーバーのアドレス。省略時はリージョンのもの。',
  },
  region: { en: 'For s3://: us-east-1 when absent.', ja: 's3:// のとき: リージョン。省略時は us-east-1。' },
  'credentials-file': {
    en: 'For s3://: file with aws_access_key_id and aws_secret_access_key; when absent, as other S3 tools find them.',
    ja: 's3:// のとき: aws_access_key_id と aws_secret_access_key のファイル。省略時は他の S3 ツールと同じ場所。',
  },
  'ca-file': {
    en: 'PEM of the authorities the server may be signed by.',
    ja: 'サーバー証明書を署名した認証局の PEM。',
  },
  'cache-dir': {
    en: 'For s3:// and https://: folder in which the index is kept for the next call, or none; ~/.cache/hakobune when absent.',
    ja: 's3:// と https:// のとき: 次回のために索引を保存するフォルダー。none で保存しない。省略時は ~/.cache/hakobune。',
  },
})

/** Of the copy a sync makes. */
export const reachingCopy = under(
  { en: 'Of the copy, with s3:// or https://', ja: '複製先が s3:// または https:// のとき' },
  Object.fromEntries(
    Object.keys(reaching).map((name) => [
      `copy-${name}`,
      { en: `As --${name}, for the copy.`, ja: `複製先についての --${name}。` },
    ]),
  ),
)
