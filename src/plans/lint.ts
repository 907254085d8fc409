/** What is wrong with a plan, each with its line and what to do about it, in English and Japanese. */
import type { PlanDocument } from './document.ts'
import type { Block } from './markdown.ts'
import { namedFiles } from './named-files.ts'
import type { Plan, PlanComplaint } from './plan.ts'
import { sectionKeys, sectionNames, type SectionKey } from './section.ts'
import { planStatuses, type PlanStatus } from './status.ts'
import { namesIn } from './template.ts'
import type { Value } from './value.ts'

type Language = PlanDocument['language']

export interface Violation {
  readonly line: number
  readonly rule: Rule
  readonly text: string
  readonly mend: string
}

interface Says {
  readonly text: string
  readonly mend: string
}

const rules = {
  'missing-section': {
    en: { text: "The section '{0}' is missing.", mend: 'Add the heading: ## {1}. {0}' },
    ja: { text: '節「{0}」がありません。', mend: '見出しを追加してください: ## {1}. {0}' },
  },
  'repeated-section': {
    en: { text: "The section '{0}' is there twice.", mend: 'Put both together under one heading.' },
    ja: { text: '節「{0}」が重複しています。', mend: '1 つの見出しにまとめてください。' },
  },
  'no-plan-id': {
    en: { text: 'The metadata name no Plan ID.', mend: 'Add: - Plan ID: plans/name.md' },
    ja: { text: 'メタデータに計画 ID がありません。', mend: '追加してください: - 計画 ID: plans/name.md' },
  },
  'unknown-status': {
    en: {
      text: "'{0}' is no status of a plan.",
      mend: 'Take the line out: the status is computed (draft, claimed, proven, stale, failed).',
    },
    ja: {
      text: '「{0}」は計画の状態ではありません。',
      mend: '行を削除してください。状態は計算されます (draft、claimed、proven、stale、failed)。',
    },
  },
  'status-is-computed': {
    en: { text: "The status says '{0}', the plan is {1}.", mend: 'Take the line out: nobody sets the status.' },
    ja: {
      text: '状態は「{0}」と書かれていますが、実際は {1} です。',
      mend: '行を削除してください。状態は設定できません。',
    },
  },
  'open-validation': {
    en: {
      text: 'There is an outcome, and this validation is not done.',
      mend: 'Run the plan to its end, or take the outcome out.',
    },
    ja: {
      text: '結果が書かれていますが、この検証は済んでいません。',
      mend: '計画を最後まで実行するか、結果を削除してください。',
    },
  },
  'missing-file': {
    en: {
      text: "'{0}' does not exist, and no step makes it.",
      mend: 'Correct the name, or add the step that makes it.',
    },
    ja: { text: '「{0}」は存在せず、作る手順もありません。', mend: '名前を直すか、作る手順を追加してください。' },
  },
  'file-outside': {
    en: { text: "'{0}' leads out of the project.", mend: 'Name files from the root of the project.' },
    ja: {
      text: '「{0}」はプロジェクトの外を指しています。',
      mend: 'プロジェクトのルートからの相対パスで書いてください。',
    },
  },
  placeholder: {
    en: { text: "'{0}' stands for something that is still to be written.", mend: 'Write it, or take the line out.' },
    ja: { text: '「{0}」は未記入の仮置きです。', mend: '内容を書くか、行を削除してください。' },
  },
  mark: {
    en: {
      text: 'The block is wrong: {0}.',
      mend: 'Mark the step: class: destroy, with destroys: and the name of the object.',
    },
    ja: { text: 'ブロックの誤り: {0}。', mend: 'class: destroy とし、destroys: に対象の名前を書いてください。' },
  },
  block: {
    en: { text: 'The block is wrong: {0}.', mend: 'Correct it; docs/formats/plan-v1.md says what a step may hold.' },
    ja: { text: 'ブロックの誤り: {0}。', mend: '修正してください。書式は docs/formats/plan-v1.md にあります。' },
  },
  'plan-block': {
    en: { text: 'The plan block is wrong: {0}.', mend: 'Correct it; docs/formats/plan-v1.md says what it may hold.' },
    ja: { text: 'plan ブロックの誤り: {0}。', mend: '修正してください。書式は docs/formats/plan-v1.md にあります。' },
  },
  'stray-block': {
    en: {
      text: 'This step block belongs to no box.',
      mend: 'Put it, indented, below an item of a list in section 4, 6 or 7.',
    },
    ja: {
      text: 'この step ブロックはどのボックスにも属していません。',
      mend: '4、6、7 節のリスト項目の下に字下げして置いてください。',
    },
  },
  'too-many-steps': {
    en: { text: 'The plan has too many steps: {0}.', mend: 'Make several plans of it.' },
    ja: { text: '手順が多すぎます: {0}。', mend: '複数の計画に分けてください。' },
  },
  unproven: {
    en: {
      text: 'The box is ticked, and nothing proves it.',
      mend: 'Let the plan run: hako plan run. Without a step block it stays claimed.',
    },
    ja: {
      text: 'ボックスに印がありますが、証明がありません。',
      mend: '計画を実行してください: hako plan run。step ブロックがなければ申告のままです。',
    },
  },
  'duplicate-id': {
    en: { text: "A step before this one has the id '{0}', too.", mend: 'Give each step an id of its own.' },
    ja: { text: 'id「{0}」は前の手順と重複しています。', mend: '手順ごとに別の id を付けてください。' },
  },
  'out-of-scope': {
    en: { text: '{0} is not in the scope, and no step before makes it.', mend: 'Name it in the plan block: scope.' },
    ja: {
      text: '{0} は scope になく、前の手順でも作られていません。',
      mend: 'plan ブロックの scope に書いてください。',
    },
  },
  'unknown-variable': {
    en: {
      text: "There is no variable '{0}' here.",
      mend: 'Declare it in the plan block, or record it in a step before this one.',
    },
    ja: {
      text: '変数「{0}」はここにはありません。',
      mend: 'plan ブロックで宣言するか、前の手順の record で記録してください。',
    },
  },
  'broken-place': {
    en: { text: "'{0}' is no place for a variable.", mend: 'Write a name alone, such as ${{ vmid }}: no expressions.' },
    ja: {
      text: '「{0}」は変数の書き方ではありません。',
      mend: '${{ vmid }} のように名前だけを書いてください。式は使えません。',
    },
  },
  'secret-shown': {
    en: {
      text: "The secret '{0}' would be shown.",
      mend: 'Use a secret as a parameter of an API call (with) and nowhere else.',
    },
    ja: {
      text: '秘密「{0}」が表示されてしまいます。',
      mend: '秘密は API 呼び出しの引数 (with) だけで使ってください。',
    },
  },
} as const satisfies Readonly<Record<string, Readonly<Record<Language, Says>>>>
export type Rule = keyof typeof rules

export interface LintFacts {
  readonly language: Language
  /** Of what is wrong in a block, into that language. */
  readonly translate?: (text: string) => string
  /** Status as computed, as far as can be known here. */
  readonly status: PlanStatus
  /** Whether a file of the project is there, by its path from the root. */
  readonly isThere: (path: string) => boolean
}

/** In the order of lines. */
export function lint(plan: Plan, facts: LintFacts): Violation[] {
  const found: Violation[] = []
  const add = (rule: Rule, line: number, ...parts: readonly string[]) => {
    const { text, mend } = rules[rule][facts.language]
    found.push({ line, rule, text: put(text, parts), mend: put(mend, parts) })
  }
  lintSections(plan, facts, add)
  lintMetadata(plan, facts, add)
  lintFiles(plan, facts, add)
  lintWords(plan, add)
  const { translate = (text: string) => text } = facts
  for (const { line, rule, text } of plan.complaints) add(ruleOf(rule), line, translate(text))
  lintSteps(plan, add)
  return found.toSorted((a, b) => a.line - b.line)
}

type Add = (rule: Rule, line: number, ...parts: readonly string[]) => void

function put(text: string, parts: readonly string[]): string {
  return text.replaceAll(/\{(\d)\}/g, (_, at: string) => parts[Number(at)] ?? '')
}

function ruleOf(rule: PlanComplaint['rule']): Rule {
  return rule
}

function lintSections({ document }: Plan, { language }: LintFacts, add: Add): void {
  for (const [at, key] of sectionKeys.entries()) {
    if (!document.sections.has(key)) add('missing-section', 1, sectionNames[key][language], String(at + 1))
  }
  for (const { title, line } of document.repeated) add('repeated-section', line, title)
  const hasOutcome = (document.sections.get('outcomes')?.blocks ?? []).some(isFinished)
  for (const { box, line } of document.sections.get('validation')?.items ?? []) {
    if (hasOutcome && box && !box.isTicked) add('open-validation', line)
  }
}

/** What runs write there says itself how they ended. */
function isFinished(block: Block): boolean {
  const isOfRun = (text: string) => /\((?:evidence|証跡) [\w-]+\)$/.test(text)
  return block.kind !== 'list' || block.items.some(({ text }) => !isOfRun(text))
}

function lintMetadata({ document, slug }: Plan, { status }: LintFacts, add: Add): void {
  if (slug === '') add('no-plan-id', document.sections.get('metadata')?.heading.line ?? 1)
  const said = document.metadata.get('status')
  if (!said) return
  const known = planStatuses.find((one) => one === said.value.toLowerCase())
  if (!known) add('unknown-status', said.line, said.value)
  else if (known !== status) add('status-is-computed', said.line, said.value, status)
}

function lintFiles(plan: Plan, { isThere }: LintFacts, add: Add): void {
  for (const { path, line, isOutside, isMade } of namedFiles(plan)) {
    if (isOutside) add('file-outside', line, path)
    else if (!isMade && !isThere(path)) add('missing-file', line, path)
  }
}

const placeholders =
  /\[?\b(?:TBD|TODO|FIXME|XXX|TBA)\b\]?|未定|要記入|後で記入|（仮）|<[a-z][a-z -]*(?:here|name|date)>|lorem ipsum/iu

function lintWords({ document, steps }: Plan, add: Add): void {
  const proofs = new Set(steps.map(({ item }) => item.start))
  for (const { key, blocks, items } of document.sections.values()) {
    for (const block of blocks) {
      if (block.kind === 'fenced') continue
      const rows = document.text.slice(block.start, block.end).split(/\r\n|\n|\r/)
      for (const [at, row] of rows.entries()) {
        const found = placeholders.exec(row)?.[0]
        if (found !== undefined) add('placeholder', block.line + at, found)
      }
    }
    const isTicked = (kind: SectionKey) => kind === 'steps' || kind === 'validation'
    if (!isTicked(key)) continue
    for (const { box, mark, line, start } of items) {
      if (box?.isTicked && (mark?.kind !== 'proven' || !proofs.has(start))) add('unproven', line)
    }
  }
}

function lintSteps({ settings, steps, document }: Plan, add: Add): void {
  const known = new Set(['node', 'run', ...settings.variables.map(({ name }) => name)])
  const secrets = new Set(settings.variables.filter(({ type }) => type === 'secret').map(({ name }) => name))
  const [ids, made] = [new Set<string>(), new Set<string>()]
  const block = document.settings[0]?.line ?? 1
  for (const text of settings.scope) {
    for (const name of namesIn(text).names)
      if (!known.has(name) || secrets.has(name)) add('unknown-variable', block, name)
  }
  for (const step of steps) {
    const { line } = step.item
    if (ids.has(step.id)) add('duplicate-id', line, step.id)
    ids.add(step.id)
    const isReachable = settings.scope.includes(step.destroys ?? '') || made.has(step.destroys ?? '')
    if (step.destroys !== undefined && !isReachable) add('out-of-scope', line, step.destroys)
    if (step.makes !== undefined) made.add(step.makes)
    const own = step.record.map(({ name }) => `steps.${step.id}.${name}`)
    if (step.act.kind === 'ask') own.push(`steps.${step.id}.answer`)
    const { hidden, hiddenLater, shown } = partsOf(step)
    const later = new Set([...known, ...own])
    for (const [value, names] of [
      [hidden, known],
      [hiddenLater, later],
      [shown, later],
    ] as const) {
      const { names: used, broken } = namesIn(value)
      for (const name of new Set(used)) if (!names.has(name)) add('unknown-variable', line, name)
      for (const place of broken) add('broken-place', line, place)
    }
    for (const name of new Set(namesIn(shown).names)) if (secrets.has(name)) add('secret-shown', line, name)
    for (const name of own) known.add(name)
  }
}

/** `hidden`: parameters of calls, where a secret may stand, of an undo later; `shown`: everything that is logged or recorded. */
function partsOf(step: Plan['steps'][number]): Readonly<Record<'hidden' | 'hiddenLater' | 'shown', Value>> {
  const { act, look, expect, undo, makes = '', destroys = '', record } = step
  const calls = [act, ...(look ? [look] : []), ...undo]
  const [hidden, hiddenLater, shown]: [Value[], Value[], Value[]] = [[], [], []]
  for (const call of calls) {
    if (call.kind === 'api') {
      shown.push(call.path)
      // Nothing that is looked at needs a secret.
      ;(call === act ? hidden : call === look ? shown : hiddenLater).push(call.with)
    } else if (call.kind === 'hako') shown.push([...call.words])
    else if (call.kind === 'drill') shown.push(call.with)
    else if (call.kind === 'wait')
      shown.push(call.until.path, call.until.with, ...call.for.flatMap(({ path, wanted }) => [path, wanted]))
    else if (call.kind === 'probe') shown.push(call.guest, call.file ?? '', [...(call.run ?? [])])
    else shown.push(call.question)
  }
  shown.push(
    ...expect.flatMap(({ path, wanted }) => [path, wanted]),
    makes,
    destroys,
    ...record.map(({ path }) => path),
  )
  return { hidden, hiddenLater, shown }
}
