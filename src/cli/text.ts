/** The CLI's own sentences in English and Japanese. Data, and all of JSON, are never translated. */
export type Language = 'en' | 'ja'

const sentences = {
  usage: { en: 'Usage', ja: '使い方' },
  commands: { en: 'Commands', ja: 'コマンド' },
  options: { en: 'Options', ja: 'オプション' },
  examples: { en: 'Examples', ja: '例' },
  required: { en: 'required', ja: '必須' },
  global: { en: 'Everywhere', ja: '共通オプション' },
  more: { en: 'More about one command: hako {0} --help', ja: '各コマンドの詳細: hako {0} --help' },
  nounAndVerb: { en: '<noun> <verb>', ja: '<名詞> <動詞>' },
  verb: { en: '<verb>', ja: '<動詞>' },
  unknownCommand: { en: "There is no command '{0}'.", ja: "コマンド '{0}' はありません。" },
  didYouMean: { en: 'Did you mean: {0}?', ja: 'もしかして: {0}' },
  noNode: { en: 'No node answers at {0}.', ja: '{0} でノードが応答しません。' },
  noNodeRemedy: {
    en: 'Start one with `hako lab`, or name another with --instance.',
    ja: '`hako lab` で起動するか、--instance で別のノードを指定してください。',
  },
  otherNodeRemedy: {
    en: 'Name one that is here with --instance: {0}; or start one with `hako lab`.',
    ja: '--instance でここにあるノードを指定する ({0}) か、`hako lab` で起動してください。',
  },
  typeName: { en: 'Type its name:', ja: '名前を入力してください:' },
  nothingDone: { en: 'Nothing was done.', ja: '何も実行していません。' },
  nothing: { en: 'nothing to show', ja: '表示するものはありません' },
  confirm: { en: 'This destroys {0}.', ja: '{0} を破壊する操作です。' },
  confirmRemedy: {
    en: 'Repeat it with --confirm {0}.',
    ja: '--confirm {0} を付けてもう一度実行してください。',
  },
  notKnown: {
    en: "The node does not know '{0}', a user of this machine.",
    ja: "このマシンのユーザー '{0}' は、ノードに登録されていません。",
  },
  notKnownRemedy: {
    en: 'Run it as root (sudo hako …), or let root add the user: hako user create {0}@pam.',
    ja: 'root で実行する (sudo hako …) か、root に登録してもらってください: hako user create {0}@pam',
  },
  askPassphrase: { en: 'Passphrase of the datastore:', ja: 'データストアのパスフレーズ:' },
  askAgain: { en: 'Once more:', ja: 'もう一度:' },
  askRecoveryKey: {
    en: 'Type the recovery key, to show that you have it:',
    ja: '確認のため回復キーを入力してください:',
  },
  recoveryKeyIs: {
    en: 'This is the recovery key of {0}. Print it and keep it apart from this machine: it is not shown again, and without it a lost passphrase loses every backup. Then: hako datastore key confirm {0}',
    ja: '{0} の回復キーです。印刷してこのマシンとは別の場所に保管してください。二度と表示されません。パスフレーズを失うと、これなしでは全バックアップを失います。保管したら: hako datastore key confirm {0}',
  },
  recoveryKeyConfirmed: {
    en: 'The recovery key is confirmed: the datastore takes backups.',
    ja: '回復キーを確認しました。バックアップを受け付けます。',
  },
  copiesAllPacks: {
    en: 'Without a key nobody knows what the backups of a namespace need, so all that is stored is copied. Name one (--key-file) to copy no more than that.',
    ja: '鍵がないと名前空間のバックアップに必要なデータが分からないため、保存データをすべて複製します。必要な分だけにするには鍵を指定してください (--key-file)。',
  },
  halfDevice: {
    en: '{0} is neither what it was nor the disk of the backup: nothing takes it for either. Restore onto it again.',
    ja: '{0} は元の内容でもバックアップのディスクでもない状態です (どちらとしても認識されません)。もう一度復元してください。',
  },
  servingDisk: { en: 'serving it at {0} until Ctrl-C', ja: '{0} で公開中 (Ctrl-C で終了)' },
  treeNotes: {
    en: '{0}: {1} left out as excluded, {2} mounted file systems not entered',
    ja: '{0}: 除外 {1} 件、入らなかったマウント {2} 件',
  },
  unwritten: {
    en: 'what is found is not noted in the datastore: {0}',
    ja: '確認の結果はデータストアに記録されません: {0}',
  },
  tornFiles: {
    en: '{0}: written to while being read, and kept in part as before and in part as after that: {1} file(s): {2}',
    ja: '{0}: 読み取り中に書き込まれたファイルが {1} 件あります。書き込みの前後が混ざって保存されています: {2}',
  },
  serving: {
    en: 'Serving at {0}. Print of the certificate, for --fingerprint: {1}',
    ja: '{0} で提供中。証明書の指紋 (--fingerprint 用): {1}',
  },
  oldKeysStay: {
    en: 'What opened the datastore before stays there until {0}, where it is locked: until then who had it can still use it.',
    ja: '以前の鍵情報はロックされているため {0} まで残ります。それまでは以前の手段でも開けます。',
  },
  pruned: {
    en: '{0} removed, {1} stay. Their space comes back with: hako datastore gc {2}',
    ja: '{0} 件を削除し、{1} 件を残しました。容量を戻すには: hako datastore gc {2}',
  },
  wouldPrune: {
    en: '{0} would be removed, {1} would stay. Nothing was removed.',
    ja: '{0} 件が削除対象、{1} 件が残ります。何も削除していません。',
  },
  left: { en: '{0} left', ja: '残り {0}' },
  diagramDrawn: { en: '{0} is drawn', ja: '{0} を描きました' },
  wayTitle: { en: 'The way of backup {0}, of {1}', ja: 'バックアップ {0} の経路 ({1} 時点)' },
  wayHeld: { en: 'no writes for {0} ms', ja: '書込み停止 {0} ms' },
  wayRead: { en: '{0} read in {1} s', ja: '{0} を {1} 秒で読取り' },
  wayStored: { en: '{0} stored anew', ja: '新規保存 {0}' },
  pending: {
    en: 'The running guest does not have these yet: {0}. They hold from its next start.',
    ja: '動作中のゲストには未適用: {0}。次の起動から有効になります。',
  },
  noBridge: {
    en: "Note: {0}: bridge '{1}' does not exist on this node; the guest cannot start before it does.",
    ja: "注意: {0}: ブリッジ '{1}' はこのノードにありません。作成するまでゲストは起動できません。",
  },
  pendingRemedy: {
    en: 'hako vm reboot {0}, or take it back: hako vm set {0} --revert {1}',
    ja: 'hako vm reboot {0}、または取り消し: hako vm set {0} --revert {1}',
  },
  inUse: {
    en: 'It is in use: {0}. What lies there stays, and nobody finds it any more.',
    ja: '使用中です: {0}。中身は残りますが、参照できなくなります。',
  },
  localStays: {
    en: "Every node has 'local': removed, it is as a new node has it.",
    ja: "'local' はどのノードにも必ずあります。削除すると新しいノードと同じ設定に戻ります。",
  },
  localStaysRemedy: {
    en: 'hako storage set local --disable, to have nothing put there any more',
    ja: 'hako storage set local --disable で、以後何も置かれなくなります',
  },
  outputCut: {
    en: 'hako: the output was cut: the guest agent keeps no more of it',
    ja: 'hako: 出力は途中で切れています: ゲストエージェントはこれ以上保持しません',
  },
  unchanged: {
    en: 'unchanged: {0} files as signed on {1} by node {2}',
    ja: '変更なし: {1} にノード {2} が署名した {0} 個のファイル',
  },
  wayOfRequest: { en: '{0} → {1}, {2} in all', ja: '{0} → {1}、全体 {2}' },
  wayOfTask: { en: '; the task {0}', ja: '、タスク {0}' },
  wayReads: { en: 'reads', ja: '読み取り' },
  wayWrites: { en: 'writes', ja: '書き込み' },
  wayUnknown: { en: 'time unknown', ja: '時間不明' },
  wayTask: { en: 'in the task {0}', ja: 'タスク内 {0}' },
  chainWhole: {
    en: 'unchanged: all {0} pieces of evidence, one chain without a break',
    ja: '変更なし: 証跡 {0} 件すべて、途切れのない一本の鎖',
  },
  keyOf: { en: 'key: SHA-256 {0}', ja: '鍵: SHA-256 {0}' },
  stdinHelp: { en: "hand on this command's standard input", ja: '標準入力をゲストのプログラムに渡す' },
  quietOptions: {
    en: "Taken for other tools' sake, without effect here or refused: {0}",
    ja: '他のツールのために受け付けるだけ、または拒否されるもの: {0}',
  },
  taskRunsOn: { en: 'The task goes on: {0}', ja: 'タスクは継続中です: {0}' },
  nextStep: { en: 'Next', ja: '次の手順' },
  outputHelp: { en: 'table, json, yaml, ndjson or id', ja: 'table、json、yaml、ndjson、id' },
  noWaitHelp: { en: 'print the UPID and do not wait for the task', ja: 'UPID を表示し、タスクの完了を待たない' },
  timeoutHelp: {
    en: 'stop waiting after this many seconds (exit code 6)',
    ja: '指定秒数で待機を終える (終了コード 6)',
  },
  quietHelp: { en: 'no progress, only the result', ja: '経過を表示せず結果だけを出す' },
  langHelp: { en: 'en or ja (default: from LANG)', ja: 'en または ja (既定: LANG から)' },
  instanceHelp: {
    en: 'which node of this machine (default: the one that runs)',
    ja: 'このマシンのどのノードか (既定: 動作中のもの)',
  },
  scanApp: {
    en: 'Scan this with an authenticator app, or type its secret there. It is shown this once.',
    ja: '認証アプリでこれを読み取るか、シークレットを入力してください。表示はこの一度だけです。',
  },
  codeOfApp: { en: 'Code the app shows now: ', ja: 'アプリに表示されているコード: ' },
  consoleOpen: {
    en: 'Connected. Enter wakes a silent console; Ctrl-] leaves.',
    ja: '接続しました。反応がなければ Enter を、終了するには Ctrl-] を押してください。',
  },
  consoleClosed: { en: '\nThe console is closed.', ja: '\nコンソールを閉じました。' },
  confirmHelp: { en: 'the object to destroy, typed again', ja: '破壊する対象をもう一度入力' },
} as const

export type Sentence = keyof typeof sentences

export function say(language: Language, sentence: Sentence, ...parts: readonly string[]): string {
  return sentences[sentence][language].replace(/\{(\d)\}/g, (_, index: string) => parts[Number(index)] ?? '')
}

/** From `--lang`, else `LC_ALL`, `LC_MESSAGES`, `LANG`; English where none says Japanese. */
export function languageFrom(given: string | undefined, env: Readonly<Record<string, string | undefined>>): Language {
  // One that is empty says nothing, as one that is not there.
  const wish = given ?? (env.LC_ALL || env.LC_MESSAGES || env.LANG || '')
  return wish.toLowerCase().startsWith('ja') ? 'ja' : 'en'
}
