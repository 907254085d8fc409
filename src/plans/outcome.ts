/**
 * Writes what a run found into the document: ticks with their marks, and lines of progress, surprises, decisions and
 * outcome. Only what is signed is written, and what stands there already is not written twice.
 */
import type { PlanDocument } from './document.ts'
import { type Edit, edited, linesEdit, markEdits } from './edit.ts'
import type { Plan } from './plan.ts'
import type { PlanRecord } from './record.ts'
import type { DecisionKind } from './run-state.ts'
import type { SectionKey } from './section.ts'

/** Of what a run found, into the language of the document. */
export type Translate = (text: string) => string

/** @returns the new text; the old one when there is nothing to write. @throws Fault `conflict` */
export function withOutcome(plan: Plan, record: PlanRecord, translate: Translate): string {
  const { document } = plan
  const marks = plan.steps.flatMap((step) => {
    const done = record.steps.find(({ id, digest }) => id === step.id && digest === step.digest)
    const kind = done?.result
    if (!done || (kind !== 'proven' && kind !== 'skipped' && kind !== 'waived')) return []
    const mark = { kind, at: done.ended ?? record.ended, evidence: record.id }
    return step.item.mark?.evidence === record.id ? [] : markEdits(document.text, step.item, mark, kind === 'proven')
  })
  // What failed or was taken back is not what its tick says any more.
  const failed = plan.steps.flatMap((step) => {
    const hasFailed = record.steps.some(
      ({ id, result }) => id === step.id && (result === 'failed' || result === 'undone'),
    )
    return hasFailed && step.item.mark && step.item.mark.evidence < record.id
      ? markEdits(document.text, step.item, undefined, false)
      : []
  })
  const edits: Edit[] = [...marks, ...failed]
  for (const [key, lines] of Object.entries(linesOf(record, document.language, translate)) as [
    SectionKey,
    string[],
  ][]) {
    const isThere = (document.sections.get(key)?.items ?? []).some(({ text }) => text.includes(record.id))
    if (lines.length > 0 && !isThere) edits.push(linesEdit(document, key, lines))
  }
  return edits.length === 0 ? document.text : edited(document, edits)
}

type Words = {
  readonly [K in 'proven' | 'failed' | 'skipped' | 'waived' | 'answer' | 'seconds' | 'evidence' | 'run' | 'on']: string
} & {
  readonly decision: Readonly<Record<DecisionKind, string>>
  readonly outcome: Readonly<Record<PlanRecord['outcome'], string>>
}

const words: Readonly<Record<PlanDocument['language'], Words>> = {
  en: {
    proven: 'proven',
    failed: 'failed',
    skipped: 'skipped',
    waived: 'waived',
    answer: 'answer',
    decision: { skip: 'skip', waive: 'waive', continue: 'continue' },
    seconds: 's',
    evidence: 'evidence',
    run: 'Run',
    on: 'on',
    outcome: {
      running: 'running',
      proven: 'proven',
      failed: 'failed',
      waiting: 'waits for an answer or a decision',
      interrupted: 'interrupted',
      undone: 'taken back',
      decided: 'at its end, with steps that were skipped or waived',
    },
  },
  ja: {
    proven: '証明済み',
    failed: '失敗',
    skipped: '省略',
    waived: '免除',
    answer: '回答',
    decision: { skip: '省略', waive: '免除', continue: '続行' },
    seconds: '秒',
    evidence: '証跡',
    run: '実行',
    on: 'ノード',
    outcome: {
      running: '実行中',
      proven: '証明済み',
      failed: '失敗',
      waiting: '回答または決定待ち',
      interrupted: '中断',
      undone: '取り消し済み',
      decided: '完了 (省略または免除した手順あり)',
    },
  },
}

/** Every line names the evidence, which tells whether it was written before. */
function linesOf(
  record: PlanRecord,
  language: PlanDocument['language'],
  translate: Translate,
): Partial<Record<SectionKey, string[]>> {
  const say = words[language]
  const { id, version, node, outcome } = record
  const proof = `(${say.evidence} ${id})`
  const time = (iso: string) => `[${iso.slice(0, 16).replace('T', ' ')}]`
  const steps = record.steps.flatMap((step) => {
    const { result, ended, tookMs, found = '', reason } = step
    if (result === 'begun' || result === 'waiting' || result === 'undone') return []
    const took = tookMs === undefined ? '' : ` ${(tookMs / 1000).toFixed(1)} ${say.seconds}`
    const what = result === 'failed' ? `: ${translate(found).slice(0, 300)}` : reason === undefined ? '' : `: ${reason}`
    return [`${time(ended ?? record.ended)} \`${step.id}\` ${say[result]}${took}${what} ${proof}`]
  })
  return {
    progress: steps,
    surprises: record.surprises.map(
      ({ at, step, text }) => `${time(at)} ${step === undefined ? '' : `\`${step}\`: `}${translate(text)} ${proof}`,
    ),
    decisions: [
      ...record.decisions.map(
        ({ at, kind, step, reason, by }) => `${time(at)} \`${step}\` ${say.decision[kind]}: ${reason} – ${by} ${proof}`,
      ),
      ...record.steps.flatMap(({ id: step, ended, found, by }) =>
        by === undefined
          ? []
          : [`${time(ended ?? record.ended)} \`${step}\` ${say.answer}: ${found ?? ''} – ${by} ${proof}`],
      ),
    ],
    outcomes: [
      `${time(record.ended)} ${say.run} ${record.run}: ${say.outcome[outcome]}, Hakobune ${version}, ${say.on} ${node} ${proof}`,
    ],
  }
}
