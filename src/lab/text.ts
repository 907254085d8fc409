/** What the lab says, in English and Japanese. Data (ids, quotes, verdicts) are never translated. */
import type { Language, Text } from './terminal.ts'

const sentences = {
  preflight: { en: 'This machine', ja: 'このマシン' },
  nodeStarts: { en: 'starting the node', ja: 'ノードを起動' },
  nodeUp: { en: 'node is up', ja: 'ノードが起動しました' },
  nodeWasUp: { en: 'node runs already', ja: 'ノードはすでに動作中' },
  api: { en: 'API', ja: 'API' },
  login: { en: 'user {0}, password {1}', ja: 'ユーザー {0}、パスワード {1}' },
  loginNote: {
    en: 'made for this run; the one before no longer works',
    ja: '今回のために作成。以前のものは無効になりました',
  },
  recoveryKey: { en: 'recovery key made, written down and confirmed', ja: '回復キーを作成、書き留めて確認' },
  recoveryKeyThere: { en: 'the recovery key is in {0}', ja: '回復キーは {0} にあります' },
  recoveryKeyNote: {
    en: 'opens every backup if this node is lost; the lab keeps it in {0}, keep yours elsewhere',
    ja: 'ノードを失ってもこれでバックアップが開きます。ラボは {0} に保存しますが、本番では別の場所に保管してください',
  },
  image: { en: 'guest image', ja: 'ゲストのイメージ' },
  template: { en: 'container template', ja: 'コンテナのテンプレート' },
  noContainers: {
    en: 'the container is left out: LXC is not installed',
    ja: 'コンテナは省略: LXC が入っていません',
  },
  create: { en: '{0} created', ja: '{0} を作成' },
  created: { en: '{0} is there', ja: '{0} は作成済み' },
  startMachine: { en: '{0} started, its agent answers', ja: '{0} を起動、エージェントが応答' },
  startContainer: { en: '{0} started, commands run inside', ja: '{0} を起動、内部でコマンドが動作' },
  page: { en: 'its web page answers at {0}', ja: 'Web ページが {0} で応答' },
  knownByAgent: { en: 'known file written through the agent', ja: '確認用ファイルをエージェント経由で書き込み' },
  knownInside: { en: 'known file written inside', ja: '確認用ファイルを内部で書き込み' },
  backup: { en: 'backed up', ja: 'バックアップ' },
  changed: {
    en: 'known file changed: live state and restore point differ now',
    ja: '確認用ファイルを変更: 現在の状態と復元ポイントが異なります',
  },
  drill: { en: 'restore drill', ja: '復元訓練' },
  phases: { en: 'phases', ja: '各段階の所要時間' },
  evidence: { en: 'evidence', ja: '証跡' },
  verify: {
    en: 'check it (elsewhere: add --key evidence.pub)',
    ja: '検証 (別のマシンでは --key evidence.pub を付ける)',
  },
  stays: {
    en: 'The node stays up. Ctrl-C ends it; `./hako lab down` removes everything it made.',
    ja: 'ノードは動き続けます。Ctrl-C で終了、`./hako lab down` で作成したものをすべて削除します。',
  },
  ending: { en: 'shutting down guests and node', ja: 'ゲストとノードを停止' },
  ended: {
    en: 'Ended. `./hako lab` goes on with what is there; `./hako lab down` removes everything it made.',
    ja: '終了しました。`./hako lab` で続きから再開、`./hako lab down` で作成したものをすべて削除します。',
  },
  nodeEnded: { en: 'The node was ended by somebody else.', ja: 'ノードは外部から停止されました。' },
  removed: { en: 'Removed:', ja: '削除したもの:' },
  nothingThere: { en: 'There was nothing to remove.', ja: '削除するものはありませんでした。' },
  nothingStays: { en: 'Looked again: nothing stays.', ja: '再確認: 何も残っていません。' },
  packages: { en: 'system packages', ja: 'システムパッケージ' },
} as const satisfies Readonly<Record<string, Text>>

export type SentenceKey = keyof typeof sentences

export function say(language: Language, key: SentenceKey, ...values: readonly string[]): string {
  return sentences[key][language].replace(/\{(\d)\}/g, (_, at: string) => values[Number(at)] ?? '')
}
