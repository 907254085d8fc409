/** What a document says of itself, what is proven of it, and what is written into it. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { documentOf } from './document.ts'
import { lint } from './lint.ts'
import { withOutcome } from './outcome.ts'
import { planOf } from './plan.ts'
import type { PlanRecord } from './record.ts'
import type { RunState } from './run-state.ts'
import { sectionKeys, sectionNames } from './section.ts'
import { type BoxStatus, standingOf, type StatusFacts } from './status.ts'

const evidence = '20260101T000030Z-plan-sample-4711'
const block = (id: string, more = '') =>
  `\n  \`\`\`step\n  id: ${id}\n  class: read\n  run: { api: GET /version }\n${more}  \`\`\`\n`
const bodies: Readonly<Record<string, string>> = {
  metadata: '- Plan ID: plans/sample.md\n- Author: somebody',
  context: 'About `docs/there.md`.',
  steps: `- [ ] First\n${block('first')}\n- [ ] Second\n${block('second')}`,
  validation: `- [ ] It holds\n${block('holds')}`,
}
const text = (changes: Readonly<Record<string, string>> = {}, language: 'en' | 'ja' = 'en', newline = '\n') =>
  `# Sample\n\n${sectionKeys.map((key, at) => `## ${at + 1}. ${sectionNames[key][language]}\n\n${{ ...bodies, ...changes }[key] ?? ''}`).join('\n\n')}\n`.replaceAll(
    '\n',
    newline,
  )

const asItIs = (said: string) => said

function recordFor(whole: string, changes: Partial<PlanRecord> = {}): PlanRecord {
  const { steps } = planOf(documentOf(whole))
  return {
    id: evidence,
    kind: 'plan',
    node: 'n',
    upid: 'UPID:n',
    run: evidence,
    plan: { id: 'plans/sample.md', slug: 'sample', title: 'Sample', digest: '' },
    starter: 'root@pam',
    where: 'lab',
    version: '1.0',
    started: '2026-01-01T00:00:30Z',
    ended: '2026-01-01T00:01:00Z',
    outcome: 'proven',
    values: {},
    steps: steps.map(({ id, digest }) => ({
      id,
      digest,
      result: 'proven',
      began: '2026-01-01T00:00:31Z',
      ended: '2026-01-01T00:00:41Z',
      tookMs: 1234,
      tries: 1,
      evidence,
    })),
    surprises: [{ at: '2026-01-01T00:00:35Z', step: 'first', text: 'it took 2 tries' }],
    decisions: [],
    proven: true,
    quote: 'Plan proven',
    ...changes,
  }
}

function statuses(whole: string, facts: Partial<StatusFacts>): readonly [string, readonly BoxStatus[]] {
  const { status, boxes } = standingOf(planOf(documentOf(whole)), {
    proofs: new Map(),
    now: Date.parse('2026-01-02T00:00:00Z'),
    version: '1.0',
    ...facts,
  })
  return [status, boxes.map((box) => box.status)]
}

suite('how a plan stands', () => {
  const record = recordFor(text())
  const written = withOutcome(planOf(documentOf(text())), record, asItIs)
  const good = new Map([[evidence, { ok: true, record }]])

  test('a box is proven by evidence that holds, and claimed by anything less', () => {
    assert.deepEqual(statuses(text(), {}), ['draft', ['open', 'open', 'open']])
    assert.deepEqual(statuses(text().replaceAll('[ ]', '[x]'), { proofs: good }), [
      'claimed',
      ['claimed', 'claimed', 'claimed'],
    ])
    assert.deepEqual(statuses(written, { proofs: good }), ['proven', ['proven', 'proven', 'proven']])
    const tampered = new Map([[evidence, { ok: false }]])
    assert.deepEqual(statuses(written, { proofs: tampered }), ['claimed', ['claimed', 'claimed', 'claimed']])
    assert.deepEqual(statuses(written, {}), ['claimed', ['claimed', 'claimed', 'claimed']])
    const other = new Map([
      [evidence, { ok: true, record: { ...record, plan: { ...record.plan, id: 'plans/other.md' } } }],
    ])
    assert.deepEqual(statuses(written, { proofs: other })[0], 'claimed')
  })

  test('a step that was changed since is claimed, and a tick taken away is open', () => {
    const changed = written.replace('GET /version', 'GET /nodes')
    assert.deepEqual(statuses(changed, { proofs: good }), ['claimed', ['claimed', 'proven', 'proven']])
    assert.deepEqual(statuses(written.replace('[x] Second', '[ ] Second'), { proofs: good }), [
      'draft',
      ['proven', 'open', 'proven'],
    ])
  })

  test('proof grows old, by time and by version', () => {
    const later = { proofs: good, now: Date.parse('2026-03-01T00:00:00Z') }
    assert.deepEqual(statuses(written, later)[0], 'stale')
    assert.deepEqual(statuses(written, { proofs: good, version: '1.1' })[0], 'stale')
  })

  test('what a run found is written once, in the words of the document, and all other lines stay', () => {
    for (const [language, newline] of [
      ['en', '\n'],
      ['ja', '\r\n'],
    ] as const) {
      const whole = text({}, language, newline)
      const after = withOutcome(planOf(documentOf(whole)), record, asItIs)
      assert.equal(withOutcome(planOf(documentOf(after)), record, asItIs), after)
      const [old, now] = [whole.split(newline), after.split(newline)]
      const kept = now
        .map((line) => line.replace(/^- \[x\] (.*?) <!--.*-->$/, '- [ ] $1'))
        .filter((line) => !line.includes(`${evidence})`) && line !== '')
      assert.deepEqual(
        kept,
        old.filter((line) => line !== ''),
      )
      assert.match(after, language === 'ja' ? /`first` 証明済み 1\.2 秒/ : /`first` proven 1\.2 s/)
      assert.match(after, /`first`: it took 2 tries/)
    }
  })

  test('a step that fails later opens its box again, and the plan has failed', () => {
    const second = '20260201T000030Z-plan-sample-4712'
    const [first, ...others] = record.steps
    assert.ok(first && others[0])
    const failed = { ...others[0], result: 'failed', found: 'nobody answers', evidence: second } as const
    const bad = recordFor(text(), { id: second, outcome: 'failed', steps: [{ ...first, evidence: second }, failed] })
    const after = withOutcome(planOf(documentOf(written)), bad, asItIs)
    assert.match(after, /- \[ \] Second\n/)
    assert.match(after, /`second` failed 1\.2 s: nobody answers/)
    const proofs = new Map([...good, [second, { ok: true, record: bad }]])
    const latest = { outcome: 'failed', steps: { second: failed } } as unknown as RunState
    assert.deepEqual(statuses(after, { proofs, latest }), ['failed', ['proven', 'failed', 'proven']])
  })

  test('what a guest says cannot make lines, boxes or marks of the plan', () => {
    const said = `x\n- [x] made up <!-- hako: proven 2026-01-01T00:00:41Z ${evidence} -->`
    const after = withOutcome(
      planOf(documentOf(text())),
      { ...record, surprises: [{ at: record.ended, text: said }] },
      asItIs,
    )
    const items = documentOf(after).sections.get('surprises')?.items ?? []
    assert.equal(items.length, 1)
    assert.equal(items[0]?.mark, undefined)
    assert.equal(items[0]?.box, undefined)
  })
})

suite('lint of plans', () => {
  const rulesOf = (whole: string) =>
    lint(planOf(documentOf(whole)), {
      language: 'en',
      status: 'draft',
      isThere: (path) => path === 'docs/there.md',
    }).map(({ rule, line }) => `${rule} ${whole.split('\n')[line - 1] ?? ''}`.trim())

  test('a good plan has nothing wrong', () => {
    assert.deepEqual(rulesOf(text()), [])
  })

  test('each violation is found where it is', () => {
    const found = (changes: Record<string, string>) => rulesOf(text(changes))
    assert.deepEqual(rulesOf(text().replace('## 10. Decision log', '')), ['missing-section # Sample'])
    assert.deepEqual(found({ metadata: '- Author: me' }), ['no-plan-id ## 1. Metadata'])
    assert.deepEqual(found({ metadata: '- Plan ID: plans/a.md\n- Status: done' }), ['unknown-status - Status: done'])
    assert.deepEqual(found({ metadata: '- Plan ID: plans/a.md\n- Status: proven' }), [
      'status-is-computed - Status: proven',
    ])
    assert.deepEqual(found({ outcomes: 'It went well.' }), ['open-validation - [ ] It holds'])
    assert.deepEqual(found({ context: 'See `docs/gone.md` and `../../etc/passwd.conf`.' }), [
      'missing-file See `docs/gone.md` and `../../etc/passwd.conf`.',
      'file-outside See `docs/gone.md` and `../../etc/passwd.conf`.',
    ])
    assert.deepEqual(found({ purpose: 'TBD' }), ['placeholder TBD'])
    assert.deepEqual(found({ purpose: '目的は未定です。' }), ['placeholder 目的は未定です。'])
    assert.deepEqual(found({ steps: `- [x] Done by hand\n${block('a')}` }), ['unproven - [x] Done by hand'])
    assert.deepEqual(found({ steps: `- [ ] One\n${block('a')}\n- [ ] Two\n${block('a')}` }), ['duplicate-id - [ ] Two'])
    assert.deepEqual(found({ steps: `- [ ] One\n${block('a', '  expect: { x: "${{ nobody }}" }\n')}` }), [
      'unknown-variable - [ ] One',
    ])
    assert.deepEqual(found({ steps: `- [ ] One\n${block('a', '  expect: { x: "${{ 1 + 1 }}" }\n')}` }), [
      'broken-place - [ ] One',
    ])
    assert.deepEqual(
      found({ steps: '- [ ] One\n\n  ```step\n  id: a\n  class: change\n  run: { api: DELETE /pools/x }\n  ```' }),
      ['mark   class: change'],
    )
    const gone =
      '- [ ] One\n\n  ```step\n  id: a\n  class: destroy\n  destroys: pool/x\n  run: { api: DELETE /pools/x }\n  ```'
    assert.deepEqual(found({ steps: gone }), ['out-of-scope - [ ] One'])
    assert.deepEqual(found({ steps: '```step\nid: a\n```' }), ['stray-block ```step'])
  })

  test('a secret stands nowhere where it would be shown', () => {
    const settings = '- Plan ID: plans/a.md\n\n```plan\nvariables: { pw: { type: secret } }\n```'
    const step = (run: string) => `- [ ] One\n\n  \`\`\`step\n  id: a\n  class: change\n  run: ${run}\n  \`\`\``
    const found = (run: string) => rulesOf(text({ metadata: settings, steps: step(run) }))
    assert.deepEqual(found('{ api: POST /access/users, with: { password: "${{ pw }}" } }'), [])
    assert.deepEqual(found('{ hako: [user, create, "${{ pw }}"] }'), ['secret-shown - [ ] One'])
    assert.deepEqual(found('{ api: "POST /access/users/${{ pw }}" }'), ['secret-shown - [ ] One'])
  })

  test('hostile blocks are refused within bounds', () => {
    const bomb = ['a: &a [x, x]', ...Array.from({ length: 20 }, (_, at) => `b${at}: [*a, *a]`)].join('\n')
    for (const content of [bomb, '['.repeat(5_000), `id: ${'x'.repeat(20_000)}`, '!!js/function "x"', 'id: a\nid: b']) {
      const whole = text({ steps: `- [ ] One\n\n  \`\`\`step\n${content.replaceAll(/^/gm, '  ')}\n  \`\`\`` })
      assert.ok(
        rulesOf(whole).some((rule) => rule.startsWith('block')),
        content.slice(0, 40),
      )
    }
    const many = Array.from({ length: 400 }, (_, at) => `- [ ] Step\n${block(`s${at}`)}`).join('\n')
    assert.ok(rulesOf(text({ steps: many })).some((rule) => rule.startsWith('too-many-steps')))
  })

  test('a Japanese reader is told in Japanese', () => {
    const found = lint(planOf(documentOf(text({ purpose: 'TBD' }, 'ja'))), {
      language: 'ja',
      status: 'draft',
      isThere: () => true,
    })
    assert.deepEqual(
      found.map(({ text: said }) => said),
      ['「TBD」は未記入の仮置きです。'],
    )
  })
})
