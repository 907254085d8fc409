/**
 * `hako datastore …`: the backup engine by itself, without a node. Each command loads the engine only when it is called.
 */
import { Fault } from '#base/fault.ts'
import { exitCodes } from '../exit.ts'
import type { Parsed } from '../arguments.ts'
import type { LocalCommand, LocalOption, Outside } from '../local.ts'
import type { Terminal } from '../terminal.ts'
import { fileLines, treeOption } from './file-lines.ts'
import type { Line } from './line.ts'
import { lookingLines } from './looking-lines.ts'
import { placeLines } from './place-lines.ts'
import { reaching, reachingCopy } from './place-options.ts'

/** How a datastore is opened; without any of them its passphrase is asked for. */
const opening: Readonly<Record<string, LocalOption>> = {
  'passphrase-file': {
    en: 'File whose first line is the passphrase; - for standard input.',
    ja: '1 行目がパスフレーズのファイル。- は標準入力。',
  },
  'key-file': { en: 'File of 32 bytes that opens the datastore.', ja: 'データストアを開く 32 バイトの鍵ファイル。' },
  'recovery-key-file': { en: 'File with the printed recovery key.', ja: '印刷した回復キーを書いたファイル。' },
}

const rate: LocalOption = { en: 'At most so many KiB per second.', ja: '転送の上限 (KiB/秒)。' }
const retainDays: LocalOption = {
  en: 'Nobody can remove a backup for so many days; takes a bucket with Object Lock.',
  ja: 'この日数の間は誰もバックアップを削除できない。Object Lock のあるバケットが必要。',
}
const keep: Readonly<Record<string, LocalOption>> = {
  'keep-last': { en: 'The latest so many.', ja: '最新のものをこの数だけ残す。' },
  'keep-hourly': { en: 'The last one of each of so many hours.', ja: '1 時間ごとの最後の 1 つを、この数だけ残す。' },
  'keep-daily': { en: 'The last one of each of so many days.', ja: '1 日ごとの最後の 1 つを、この数だけ残す。' },
  'keep-weekly': { en: 'The last one of each of so many weeks.', ja: '1 週間ごとの最後の 1 つを、この数だけ残す。' },
  'keep-monthly': { en: 'The last one of each of so many months.', ja: '1 か月ごとの最後の 1 つを、この数だけ残す。' },
  'keep-yearly': { en: 'The last one of each of so many years.', ja: '1 年ごとの最後の 1 つを、この数だけ残す。' },
}

const lines: readonly Line[] = [
  {
    words: ['init'],
    takes: ['dir'],
    en: 'Make an encrypted datastore in an empty directory, or in an object store; prints its recovery key.',
    ja: '空のディレクトリまたはオブジェクトストアに暗号化データストアを作る。回復キーを出力する。',
    options: {
      ...opening,
      'chunk-size': { en: '64K, 128K (when absent) or 256K.', ja: '64K、128K (省略時)、256K のいずれか。' },
      'retain-days': retainDays,
    },
    examples: [
      'datastore init /srv/backups --passphrase-file /root/pass',
      'datastore init s3://backups/site --endpoint https://s3.example.org --retain-days 30',
    ],
    act: async ([dir = ''], parsed, terminal) => (await import('./making.ts')).init(dir, parsed, terminal),
  },
  {
    words: ['backup'],
    takes: ['dir', 'source…'],
    en: 'Back up directories, and raw or qcow2 images or block devices that nobody writes to meanwhile.',
    ja: 'ディレクトリ、または書き込まれていない raw / qcow2 イメージやブロックデバイスをバックアップする。',
    options: {
      ...opening,
      id: { en: 'What it is of; the name of the file when absent.', ja: '対象の名前。省略時はファイル名。' },
      type: { en: 'vm, ct or host (when absent).', ja: 'vm、ct、host (省略時) のいずれか。' },
      namespace: { en: 'office.servers, to keep apart what is not one.', ja: '名前空間。例: office.servers' },
      format: { en: 'raw or qcow2.', ja: 'raw または qcow2。' },
      exclude: {
        en: 'What of a directory is left out, as /var/cache/?* or *.tmp; may be given often.',
        ja: 'ディレクトリから除外するもの。例: /var/cache/?* や *.tmp。複数指定可。',
        isMany: true,
      },
      'exclude-file': {
        en: 'File with such patterns, one a line; # begins a comment.',
        ja: '除外パターンを 1 行に 1 つ書いたファイル。# で始まる行は注釈。',
      },
      'exclude-caches': {
        en: 'Leave out what is in folders a CACHEDIR.TAG calls a cache.',
        ja: 'CACHEDIR.TAG でキャッシュとされたフォルダの中身を除外する。',
        isFlag: true,
      },
      notes: {
        en: 'For people, beside the backup; read without a key.',
        ja: 'バックアップに付けるメモ。鍵なしで読める。',
      },
      'dry-run': {
        en: 'Only say how much would be taken in and left out; needs no key.',
        ja: '対象と除外の量を示すだけ。鍵は不要。',
        isFlag: true,
      },
      level: { en: 'Of compression, 1 (when absent) to 19.', ja: '圧縮レベル。1 (省略時) から 19。' },
      bwlimit: rate,
    },
    examples: [
      'datastore backup /srv/backups disk.raw --id web',
      'datastore backup /srv/backups /home --exclude /anna/.cache',
    ],
    columns: ['backup', 'size', 'data', 'new-data', 'seconds'],
    id: 'backup',
    act: async ([dir = '', ...sources], parsed, terminal) =>
      (await import('./acts.ts')).backUp(dir, sources, parsed, terminal),
  },
  ...lookingLines(opening),
  {
    words: ['verify'],
    takes: ['dir', 'backup…?'],
    en: 'Read everything a restore would need; with --packs, compare all files with their names, without a key.',
    ja: '復元に必要なものをすべて読んで検証する。--packs は鍵なしで全ファイルを名前と照合する。',
    options: {
      ...opening,
      packs: {
        en: 'Needs no key; with one, says which backups are hit.',
        ja: '鍵は不要。あれば影響を受けるバックアップも示す。',
        isFlag: true,
      },
      budget: {
        en: 'Packs, the longest unseen first, for 90s, 10m or 2h.',
        ja: '長く見ていないパックから、90s・10m・2h の間だけ。',
      },
      'budget-bytes': {
        en: 'As --budget, until so much was read: 100G.',
        ja: '--budget と同様に、この量を読むまで。例: 100G',
      },
    },
    examples: ['datastore verify /srv/backups', 'datastore verify /srv/backups --budget 10m --budget-bytes 100G'],
    columns: ['backup', 'verdict', 'chunks', 'size', 'why'],
    id: 'backup',
    act: async ([dir = '', ...names], parsed, terminal) =>
      (await import('./acts.ts')).verify(dir, names, parsed, terminal),
  },
  {
    words: ['restore'],
    takes: ['dir', 'backup', 'target'],
    en: 'Write a disk of a backup to a new raw file or over a block device, which is named again when asked or by --confirm; or a tree of files into an empty folder; - for standard output, a tree as tar.',
    ja: 'バックアップのディスクを新しい raw ファイルに、またはブロックデバイスに上書きで (名前を尋ねられて入力するか --confirm で渡す)、あるいはファイルのツリーを空のフォルダに書き出す。- は標準出力 (ツリーは tar)。',
    options: {
      ...opening,
      disk: { en: 'Which; the first when absent.', ja: 'ディスク名。省略時は最初のもの。' },
      tree: treeOption,
      bwlimit: rate,
    },
    examples: [
      'datastore restore /srv/backups host/web web.raw',
      'datastore restore /srv/backups host/home /srv/old',
      'datastore restore /srv/backups host/web /dev/sdb --confirm /dev/sdb',
      'datastore restore /srv/backups host/web - | qemu-img dd if=/dev/stdin of=web.qcow2 -O qcow2',
    ],
    columns: ['backup', 'disk', 'tree', 'target', 'size', 'entries', 'data'],
    act: async ([dir = '', name = '', target = ''], parsed, terminal) => {
      const rows = await (await import('./acts.ts')).restore(dir, name, target, parsed, terminal)
      return rows && { rows }
    },
  },
  ...fileLines(opening),
  {
    words: ['serve-disk'],
    takes: ['dir', 'backup', 'socket'],
    en: 'Serve a disk of a backup over NBD, read-only, for qemu, qemu-img or nbdcopy, until Ctrl-C.',
    ja: 'バックアップのディスクを NBD で読み取り専用公開する (qemu、qemu-img、nbdcopy 用、Ctrl-C で終了)。',
    options: { ...opening, disk: { en: 'Which; the first when absent.', ja: 'ディスク名。省略時は最初のもの。' } },
    examples: ['datastore serve-disk /srv/backups host/web /run/web.sock'],
    columns: ['backup', 'disk', 'socket', 'size', 'data'],
    act: async ([dir = '', name = '', socket = ''], parsed, terminal) => ({
      rows: await (await import('./serve-disk.ts')).serveDisk(dir, name, socket, parsed, terminal),
    }),
  },
  {
    words: ['prune'],
    takes: ['dir', 'backup…?'],
    en: 'Remove the backups no --keep-* option keeps: of all guests, each by itself, or of those named; a protected or damaged one stays.',
    ja: 'どの --keep-* でも残らないバックアップを削除する。対象は全ゲスト (それぞれ別に数える) または指定したもの。保護中と破損したものは残る。',
    options: { ...keep, 'dry-run': { en: 'Only say what would go.', ja: '削除対象を示すだけ。', isFlag: true } },
    examples: [
      'datastore prune /srv/backups --keep-daily 7 --keep-weekly 4 --dry-run',
      'datastore prune /srv/backups host/web --keep-last 3',
    ],
    columns: ['backup', 'time', 'mark', 'until'],
    id: 'backup',
    act: async ([dir = '', ...names], parsed, terminal) => ({
      rows: await (await import('./point-acts.ts')).prune(dir, names, parsed, terminal),
    }),
  },
  {
    words: ['remove'],
    takes: ['dir', 'backup'],
    en: 'Remove one backup, by its whole name; its space comes back with gc.',
    ja: 'バックアップを 1 つ、正式な名前で削除する。容量は gc で戻る。',
    examples: ['datastore remove /srv/backups host/web/2026-01-01T00:00:00Z'],
    act: async ([dir = '', name = ''], parsed) => (await import('./acts.ts')).remove(dir, name, parsed),
  },
  {
    words: ['gc'],
    takes: ['dir'],
    en: 'Give back the space no backup needs; others may read and write meanwhile.',
    ja: 'どのバックアップも使わない領域を返す。読み書きと並行できる。',
    options: {
      ...opening,
      grace: { en: 'Seconds between condemning and removing; 0 when absent.', ja: '猶予 (秒)。省略時は 0。' },
      'dry-run': { en: 'Only say what would be given back.', ja: '戻る容量を示すだけ。', isFlag: true },
    },
    examples: ['datastore gc /srv/backups', 'datastore gc /srv/backups --dry-run'],
    act: async ([dir = ''], parsed, terminal) => ({
      rows: await (await import('./care-acts.ts')).gc(dir, parsed, terminal),
    }),
  },
  {
    words: ['sync'],
    takes: ['dir', 'copy'],
    en: 'Make a copy in another place, or bring it up to date; needs no key, and goes on where it was cut off.',
    ja: '別の場所に複製を作る、または最新にする。鍵は不要。中断しても続きから再開する。',
    options: {
      ...opening,
      namespace: {
        en: 'Only what is in it, and below; with a key, no more is copied than that needs.',
        ja: 'この名前空間とその下だけ。鍵があれば、それに必要なデータだけを複製する。',
      },
      'remove-vanished': { en: 'Remove what is gone at the source.', ja: '元にないものを削除する。', isFlag: true },
      bwlimit: rate,
      'retain-days': retainDays,
      ...reachingCopy,
    },
    examples: [
      'datastore sync /srv/backups s3://backups/site --copy-endpoint https://s3.example.org',
      'datastore sync /srv/backups /mnt/usb/backups --bwlimit 51200',
    ],
    act: async ([dir = '', copy = ''], parsed, terminal) => ({
      rows: await (await import('./care-acts.ts')).sync(dir, copy, parsed, terminal),
    }),
  },
  {
    words: ['migrate'],
    takes: ['old', 'dir'],
    en: 'Take the backups of a datastore of the first format over into an encrypted one that was made before; goes on where it was cut off.',
    ja: '最初の形式のデータストアから、作成済みの暗号化データストアへバックアップを移す。中断しても続きから再開する。',
    options: opening,
    examples: ['datastore migrate /srv/old /srv/backups'],
    act: async ([old = '', dir = ''], parsed, terminal) => ({
      rows: await (await import('./migrate.ts')).migrate(old, dir, parsed, terminal),
    }),
  },
  {
    words: ['repair'],
    takes: ['dir'],
    en: 'Make the index anew from the packs, when a part of it is lost or damaged.',
    ja: '索引の一部が失われたり壊れたりしたとき、パックから作り直す。',
    options: {
      ...opening,
      from: {
        en: 'Instead, fetch what is damaged or lost from this copy of the datastore; needs no key but for what is locked, or a backup that is gone.',
        ja: '代わりに、壊れたり失われたりしたものをこの複製から取り戻す。ロックされているものと消えたバックアップ以外は鍵は不要。',
      },
      ...reachingCopy,
    },
    examples: ['datastore repair /srv/backups', 'datastore repair /srv/backups --from /mnt/usb/backups'],
    act: async ([dir = ''], parsed, terminal) => (await import('./care-acts.ts')).repair(dir, parsed, terminal),
  },
  {
    words: ['key', 'list'],
    takes: ['dir'],
    en: 'What opens a datastore; needs no key.',
    ja: 'データストアを開く手段の一覧。鍵は不要。',
    examples: ['datastore key list /srv/backups'],
    columns: ['id', 'kind', 'may', 'created', 'confirmed', 'comment'],
    id: 'id',
    act: async ([dir = ''], parsed) => ({ rows: await (await import('./making.ts')).keyRows(dir, parsed) }),
  },
  {
    words: ['key', 'confirm'],
    takes: ['dir'],
    en: 'Show that you have the recovery key; no backup is taken before.',
    ja: '回復キーを持っていることを示す。確認が済むまでバックアップはできない。',
    options: { 'recovery-key-file': opening['recovery-key-file'] ?? { en: '', ja: '' } },
    examples: ['datastore key confirm /srv/backups'],
    act: async ([dir = ''], parsed, terminal) => (await import('./making.ts')).confirmCommand(dir, parsed, terminal),
  },
  {
    words: ['key', 'add'],
    takes: ['dir'],
    en: 'Another way in: a passphrase (asked for), a key file, or a recovery key.',
    ja: '開く手段を追加する: パスフレーズ (入力)、鍵ファイル、回復キー。',
    options: {
      ...opening,
      'new-passphrase-file': {
        en: 'File whose first line is the new passphrase.',
        ja: '1 行目が新しいパスフレーズのファイル。',
      },
      'new-key-file': { en: 'File of 32 bytes that opens it, too.', ja: '追加する 32 バイトの鍵ファイル。' },
      recovery: { en: 'Print a new recovery key.', ja: '新しい回復キーを出力する。', isFlag: true },
      'write-only': {
        en: 'It adds backups, and reads none, not even its own.',
        ja: 'バックアップの追加だけができ、自分のものも含めて読めない。',
        isFlag: true,
      },
      'public-key': {
        en: 'With --write-only: as key make printed it where the host is.',
        ja: '--write-only のとき: 対象のホストで key make が出力した公開鍵。',
      },
      namespace: {
        en: 'With --write-only: where it may add, and below.',
        ja: '--write-only のとき: 追加できる名前空間 (その下も含む)。',
      },
      comment: { en: 'For people.', ja: 'メモ。' },
    },
    examples: [
      'datastore key add /srv/backups --comment "night shift"',
      'datastore key add /srv/backups --recovery',
      'datastore key add /srv/backups --write-only --public-key "$(ssh web1 hako datastore key make /root/key)" --namespace web1',
    ],
    act: async ([dir = ''], parsed, terminal) => (await import('./making.ts')).addKey(dir, parsed, terminal),
  },
  {
    words: ['key', 'make'],
    takes: ['file'],
    en: 'Make a key file for a host, and print the half of it others may know.',
    ja: 'ホスト用の鍵ファイルを作り、公開してよい側を出力する。',
    examples: ['datastore key make /root/datastore.key'],
    act: async ([file = ''], _, terminal) => (await import('./making.ts')).makeKey(file, terminal),
  },
  {
    words: ['key', 'remove'],
    takes: ['dir', 'id'],
    en: 'Take a way in away; what is stored from then on is sealed with a new key.',
    ja: '開く手段を取り除く。以後の保存には新しい鍵を使う。',
    options: opening,
    examples: ['datastore key remove /srv/backups 0b0e4f8c-5a07-4a35-9e57-6a3c2f0b7c11'],
    act: async ([dir = '', id = ''], parsed, terminal) =>
      (await import('./making.ts')).removeKey(dir, id, parsed, terminal),
  },
  {
    words: ['key', 'rotate'],
    takes: ['dir'],
    en: 'Seal what is stored from now on with a new key; nothing is written anew.',
    ja: '以後の保存に新しい鍵を使う。既存のデータは書き直さない。',
    options: opening,
    examples: ['datastore key rotate /srv/backups'],
    act: async ([dir = ''], parsed, terminal) => (await import('./making.ts')).rotateKeys(dir, parsed, terminal),
  },
]

export const datastoreCommands: readonly LocalCommand[] = [...lines, ...placeLines].map((line) => ({
  words: ['datastore', ...line.words],
  usage: usageOf(line),
  description: { en: line.en, ja: line.ja },
  options: optionsOf(line),
  examples: line.examples,
  run: (args, terminal, { env }) => run(line, args, terminal, env),
}))

/** Nearly every command is about a datastore somewhere. */
function optionsOf({ options = {}, takes }: Line): Readonly<Record<string, LocalOption>> {
  return takes[0] === 'dir' ? { ...reaching, ...options } : options
}

function usageOf({ words, takes }: Line): string {
  const plain = takes.map((name) => (name.endsWith('?') ? `[<${name.slice(0, -1)}>]` : `<${name}>`))
  return ['datastore', ...words, ...plain, '[options]'].join(' ')
}

/** Where scripts name the way in once; anything on the command line comes first. */
const fromEnvironment = { 'passphrase-file': 'HAKO_PASSPHRASE_FILE', 'key-file': 'HAKO_KEY_FILE' } as const

function withEnvironment(line: Line, parsed: Parsed, env: Outside['env']): Parsed {
  const ways = Object.entries(fromEnvironment).filter(([name]) => line.options?.[name] !== undefined)
  if (Object.keys(opening).some((name) => parsed.params[name] !== undefined)) return parsed
  const given = ways.flatMap(([name, variable]) => (env[variable] ? [[name, env[variable]] as const] : []))
  return { ...parsed, params: { ...parsed.params, ...Object.fromEntries(given) } }
}

async function run(line: Line, args: readonly string[], terminal: Terminal, env: Outside['env']): Promise<number> {
  const [{ parseFor }, { printed }] = await Promise.all([import('../arguments.ts'), import('../print.ts')])
  const { takes } = line
  const described = Object.entries(optionsOf(line)).map(([name, { en, isFlag, isMany = false }]) => {
    const type = isFlag ? 'boolean' : 'string'
    return [name, { type, description: en, required: false, multiple: isMany, isSecret: false }] as const
  })
  const parsed = withEnvironment(line, parseFor({ positional: [], options: Object.fromEntries(described) }, args), env)
  const least = takes.filter((name) => !name.endsWith('?')).length
  const isOpen = takes.at(-1)?.includes('…') ?? false
  const { positionals, global } = parsed
  if (positionals.length < least || (!isOpen && positionals.length > takes.length)) {
    throw new Fault('invalid', `it takes ${least === 0 ? 'nothing' : takes.join(', ')}: hako ${usageOf(line)}`)
  }
  // Progress goes; what somebody should know stays.
  const show: Terminal['show'] = (text, isTransient) =>
    isTransient && global.quiet ? undefined : terminal.show(text, isTransient)
  const outcome = await line.act(positionals, parsed, { ...terminal, show })
  if (!outcome) return exitCodes.ok
  const { columns = line.columns } = outcome
  const { id } = line
  const { language, width } = terminal
  terminal.out(await printed(outcome.rows, { format: global.output, columns, id, language, width }))
  if (outcome.isProven === false) return exitCodes.unproven
  return outcome.isWhole === false ? exitCodes.failed : exitCodes.ok
}
