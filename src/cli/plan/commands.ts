/** `hako plan …`: documents are read and written here, and run by the node. */
import type { LocalCommand, LocalOption } from '../local.ts'

const running: Readonly<Record<string, LocalOption>> = {
  in: {
    en: 'lab (when absent) or live: what kind of node this is meant for.',
    ja: 'lab (省略時) または live。どの種のノードで実行するか。',
  },
  var: {
    en: 'name=value, any number of times; of a secret name=file:PATH (/dev/stdin, too) or name=env:NAME.',
    ja: '名前=値 (複数可)。秘密は 名前=file:パス (/dev/stdin も可) または 名前=env:変数名。',
  },
  'grant-destroy': { en: 'Destroy on a live node, too.', ja: 'live ノードでも破壊を許可する。', isFlag: true },
  answer: { en: 'step=answer, to a question a step asks.', ja: '手順=回答。手順の質問に答える。' },
  skip: { en: 'Step that is left out; --reason says why.', ja: '省略する手順。理由は --reason で。' },
  waive: { en: 'Step whose proof is waived; --reason says why.', ja: '証明を免除する手順。理由は --reason で。' },
  continue: {
    en: 'Step that is done although it may be done already; --reason.',
    ja: '実行済みか不明でも実行する手順。理由は --reason で。',
  },
  reason: { en: 'Why it was decided so; written into the plan.', ja: '決定の理由。計画に記録される。' },
}

export const planCommands: readonly LocalCommand[] = [
  {
    words: ['plan', 'new'],
    usage: 'plan new <file.md> [--title TEXT]',
    description: { en: 'Write a new plan with its twelve sections.', ja: '12 節を備えた新しい計画を書き出す。' },
    options: { title: { en: 'What it is called.', ja: '計画の表題。' } },
    examples: ["plan new plans/move-web.md --title 'Move the web server'"],
    run: async (args, terminal) => (await import('./new.ts')).newPlan(args, terminal),
  },
  {
    words: ['plan', 'lint'],
    usage: 'plan lint <file>…',
    description: {
      en: 'Say what is wrong with plans, line by line, and what to do.',
      ja: '計画の問題点と対処を行ごとに示す。',
    },
    examples: ['plan lint plans/*.md', 'plan lint plans/first-restore.en.md -o json'],
    run: async (args, terminal) => (await import('./looking.ts')).lintPlans(args, terminal),
  },
  {
    words: ['plan', 'show'],
    usage: 'plan show <file>',
    description: {
      en: 'Boxes of a plan: open, claimed, proven, stale or failed, and why.',
      ja: '計画のボックスの状態 (未着手・申告・証明済み・期限切れ・失敗) と理由。',
    },
    examples: ['plan show plans/first-restore.en.md'],
    run: async (args, terminal, outside) => (await import('./looking.ts')).showPlan(args, terminal, outside),
  },
  {
    words: ['plan', 'status'],
    usage: 'plan status <file>…',
    description: { en: 'How plans stand, as computed from their proofs.', ja: '証明から計算した計画の状態。' },
    examples: ['plan status plans/*.md', 'plan status plans/*.md -o json'],
    run: async (args, terminal, outside) => (await import('./looking.ts')).planStatus(args, terminal, outside),
  },
  {
    words: ['plan', 'list'],
    usage: 'plan list [<folder>…]',
    description: {
      en: 'Plans in a folder: how they stand, how old their proof is, when they run next by themselves.',
      ja: 'フォルダ内の計画の一覧: 状態、証明の経過日数、次回の自動実行。',
    },
    examples: ['plan list', 'plan list docs/runbooks -o json'],
    run: async (args, terminal, outside) => (await import('./looking.ts')).listPlans(args, terminal, outside),
  },
  {
    words: ['plan', 'update'],
    usage: 'plan update <file>…',
    description: {
      en: 'Write into plans what runs have found meanwhile, such as those that are scheduled.',
      ja: '自動実行などで得られた結果を計画に書き込む。',
    },
    examples: ['plan update plans/*.md'],
    run: async (args, terminal, outside) => (await import('./looking.ts')).updatePlans(args, terminal, outside),
  },
  {
    words: ['plan', 'run'],
    usage: 'plan run <file> [--dry-run] [--in lab|live] [--var name=value]…',
    description: {
      en: 'Run a plan with your rights, and write into it what was found.',
      ja: '自分の権限で計画を実行し、結果を計画に書き込む。',
    },
    options: {
      'dry-run': { en: 'Only say what would be done.', ja: '実行内容を示すだけ。', isFlag: true },
      ...running,
    },
    examples: [
      'plan run plans/first-restore.en.md --dry-run',
      'plan run plans/first-restore.en.md --in live --var vmid=100',
      'plan run plans/restore-over.en.md --confirm guest/9101',
    ],
    run: async (args, terminal, outside) =>
      (await import('./running.ts')).runPlanCommand('run', args, terminal, outside),
  },
  {
    words: ['plan', 'resume'],
    usage: 'plan resume <file> [options]',
    description: {
      en: 'Go on with a run at the first step that is not proven.',
      ja: '未証明の最初の手順から実行を再開する。',
    },
    options: running,
    examples: [
      'plan resume plans/first-restore.en.md',
      'plan resume plans/onboard-operator.en.md --skip unplug --reason "it has no card"',
    ],
    run: async (args, terminal, outside) =>
      (await import('./running.ts')).runPlanCommand('resume', args, terminal, outside),
  },
  {
    words: ['plan', 'schedule', 'list'],
    usage: 'plan schedule list',
    description: {
      en: 'Plans that run by themselves, when next, and whether their files still say what is run.',
      ja: '自動で実行される計画と次回の時刻、ファイルの内容が登録時と同じかどうか。',
    },
    examples: ['plan schedule list', 'plan schedule list -o json'],
    run: async (args, terminal, outside) => (await import('./scheduling.ts')).listSchedules(args, terminal, outside),
  },
  {
    words: ['plan', 'schedule', 'remove'],
    usage: 'plan schedule remove <id>',
    description: {
      en: 'Let a plan no longer run by itself; its proofs stay.',
      ja: '計画の自動実行をやめる。証明は残る。',
    },
    examples: ['plan schedule remove monthly-review-en'],
    run: async (args, terminal, outside) => (await import('./scheduling.ts')).removeSchedule(args, terminal, outside),
  },
  {
    words: ['plan', 'schedule'],
    usage: 'plan schedule <file> --at TIME [--id NAME] [--repeat-missed] [--var name=value]…',
    description: {
      en: 'Let a plan run again by itself in the lab, as its file says now; done again, it takes what the file says then.',
      ja: 'ラボで計画を定期的に再実行する。登録時の内容が使われ、再登録すると新しい内容に替わる。',
    },
    options: {
      at: { en: "When: 'sat 03:00', 'monthly'.", ja: "時刻。例: 'sat 03:00'、'monthly'。" },
      id: { en: 'Name of the schedule; that of the plan when absent.', ja: 'スケジュール名。省略時は計画の名前。' },
      'repeat-missed': {
        en: 'Make up for a run that was missed, once.',
        ja: '実行できなかった回を一度だけ補う。',
        isFlag: true,
      },
      var: { en: 'name=value, any number of times.', ja: '名前=値 (複数可)。' },
    },
    examples: [
      "plan schedule plans/monthly-review.en.md --at 'monthly'",
      "plan schedule plans/first-restore.en.md --at 'sat 03:00' --repeat-missed --var vmid=105",
    ],
    run: async (args, terminal, outside) => (await import('./scheduling.ts')).schedulePlan(args, terminal, outside),
  },
  {
    words: ['plan', 'undo'],
    usage: 'plan undo <file> [options]',
    description: { en: 'Take back what an unfinished run did.', ja: '未完了の実行が行ったことを取り消す。' },
    options: running,
    examples: ['plan undo plans/first-restore.en.md'],
    run: async (args, terminal, outside) =>
      (await import('./running.ts')).runPlanCommand('undo', args, terminal, outside),
  },
]
