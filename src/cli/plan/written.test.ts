/** What a run found is written into a plan in the plan's own language. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { documentOf } from '#plans/document.ts'
import { withOutcome } from '#plans/outcome.ts'
import { planOf } from '#plans/plan.ts'
import type { PlanRecord } from '#plans/record.ts'
import { sectionKeys, sectionNames } from '#plans/section.ts'
import { translation } from '../translation.ts'

const step = (id: string) =>
  `- [ ] ${id}\n\n  \`\`\`step\n  id: ${id}\n  class: read\n  run: { api: GET /version }\n  \`\`\`\n`
const text = (headings: 'en' | 'ja', metadata = '') =>
  `# T\n\n${sectionKeys
    .map(
      (key) =>
        `## ${sectionNames[key][headings]}\n\n${key === 'steps' ? step('one') + step('two') : ''}${key === 'metadata' ? `- Plan ID: plans/t.md\n${metadata}` : ''}`,
    )
    .join('\n\n')}\n`

const [at, id] = ['2026-01-01T00:00:30Z', '20260101T000030Z-plan-t-1']
const record = (whole: string): PlanRecord => {
  const [one, two] = planOf(documentOf(whole)).steps
  const common = { began: at, ended: at, tries: 1, evidence: id }
  return {
    id,
    kind: 'plan',
    node: 'n',
    upid: 'UPID:n',
    run: id,
    plan: { id: 'plans/t.md', slug: 't', title: 'T', digest: '' },
    starter: 'root@pam',
    where: 'lab',
    version: '1.0',
    started: at,
    ended: at,
    outcome: 'failed',
    values: {},
    steps: [
      { ...common, id: 'one', digest: one?.digest ?? '', result: 'skipped', reason: '済んでいる' },
      {
        ...common,
        id: 'two',
        digest: two?.digest ?? '',
        result: 'failed',
        tookMs: 40,
        found: 'status: expected is running, found stopped',
      },
    ],
    surprises: [
      { at, step: 'two', text: 'it took 2 tries' },
      { at, text: 'begun with version 0.9, goes on with 1.0' },
    ],
    decisions: [{ at, kind: 'skip', step: 'one', reason: '済んでいる', by: 'root@pam' }],
    proven: false,
    quote: '',
  }
}

async function written(whole: string): Promise<string[]> {
  const plan = planOf(documentOf(whole))
  const after = withOutcome(plan, record(whole), await translation(plan.document.language))
  const before = new Set(whole.split('\n'))
  return after.split('\n').filter((line) => !before.has(line) && !line.includes('<!--'))
}

test('a Japanese plan is written to in Japanese: progress, surprises, decisions and outcome', async () => {
  const japanese = [
    `- [2026-01-01 00:00] \`one\` 省略: 済んでいる (証跡 ${id})`,
    `- [2026-01-01 00:00] \`two\` 失敗 0.0 秒: status: 期待は is running、実際は stopped (証跡 ${id})`,
    `- [2026-01-01 00:00] \`two\`: 2 回試行しました (証跡 ${id})`,
    `- [2026-01-01 00:00] バージョン 0.9 で開始し、1.0 で続行します (証跡 ${id})`,
    `- [2026-01-01 00:00] \`one\` 省略: 済んでいる – root@pam (証跡 ${id})`,
    `- [2026-01-01 00:00] 実行 ${id}: 失敗, Hakobune 1.0, ノード n (証跡 ${id})`,
  ]
  assert.deepEqual(await written(text('ja')), japanese)
  // The metadata say what headings do not.
  assert.deepEqual(await written(text('en', '- 言語: 日本語\n')), japanese)
})

test('an English plan is written to in English, whatever its headings are', async () => {
  const english = await written(text('en'))
  assert.equal(
    english[1],
    `- [2026-01-01 00:00] \`two\` failed 0.0 s: status: expected is running, found stopped (evidence ${id})`,
  )
  assert.deepEqual(await written(text('ja', '- Language: English\n')), english)
})
