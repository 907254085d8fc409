/** What of a document can be run: variables, scope, and steps in the order they are done. */
import { createHash } from 'node:crypto'
import type { PlanDocument, PlanItem } from './document.ts'
import { limits } from '#base/limits.ts'
import type { SectionKey } from './section.ts'
import { readStep, type Step } from './step.ts'
import { slugOf } from './slug.ts'
import { type PlanSettings, readSettings, usualProofDays } from './variable.ts'
import { readYaml } from './yaml.ts'

export interface PlanStep extends Step {
  readonly item: PlanItem
  /** Assumptions are checked first, then come the steps, then what validates. */
  readonly part: 'assumption' | 'step' | 'validation'
}

export interface Plan {
  readonly document: PlanDocument
  /** As its metadata names it. */
  readonly id: string
  /** Of the id, fit for names of tasks and evidence. */
  readonly slug: string
  readonly settings: PlanSettings
  readonly steps: readonly PlanStep[]
  readonly complaints: readonly PlanComplaint[]
}

export interface PlanComplaint {
  /** In the document, from 1. */
  readonly line: number
  readonly rule: 'block' | 'plan-block' | 'too-many-steps' | 'mark' | 'stray-block'
  readonly text: string
}

const parts: readonly (readonly [SectionKey, PlanStep['part']])[] = [
  ['constraints', 'assumption'],
  ['steps', 'step'],
  ['validation', 'validation'],
]

export function planOf(document: PlanDocument): Plan {
  const complaints: PlanComplaint[] = []
  const id = document.metadata.get('plan id')?.value ?? ''
  const steps = parts.flatMap(([key, part]) =>
    (document.sections.get(key)?.items ?? []).flatMap((item) => stepOf(item, part, complaints)),
  )
  for (const block of document.stray) {
    complaints.push({ line: block.line, rule: 'stray-block', text: 'this step block belongs to no item of a list' })
  }
  if (steps.length > limits.plans.steps) {
    const line = steps[limits.plans.steps]?.item.line ?? 1
    complaints.push({ line, rule: 'too-many-steps', text: `a plan may have ${limits.plans.steps} steps` })
  }
  return { document, id, slug: slugOf(id), settings: settingsOf(document, complaints), steps, complaints }
}

/** Of what it does: a box that is ticked and a line somebody adds make no other plan of it. */
export function digestOf({ settings, steps }: Plan): string {
  const parts = [settings, steps.map((step) => [step.id, step.digest])]
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex')
}

function stepOf(item: PlanItem, part: PlanStep['part'], complaints: PlanComplaint[]): PlanStep[] {
  const blocks = item.fenced.filter(({ language }) => language === 'step')
  const [block, second] = blocks
  if (second) complaints.push({ line: second.line, rule: 'block', text: 'an item has one step block' })
  if (!block) return []
  const { step, complaints: found } = readStep(block.content)
  for (const { line, text } of found) {
    const rule = /lacks its mark/.test(text) ? 'mark' : 'block'
    complaints.push({ line: block.line + line, rule, text })
  }
  if (step && !item.box && part !== 'assumption') {
    complaints.push({ line: item.line, rule: 'block', text: 'a step has a box: - [ ] …' })
  }
  return step ? [{ ...step, item, part }] : []
}

function settingsOf(document: PlanDocument, complaints: PlanComplaint[]): PlanSettings {
  const [block, second] = document.settings
  if (second) complaints.push({ line: second.line, rule: 'plan-block', text: 'a plan has one plan block' })
  if (!block) return { variables: [], scope: [], proofDays: usualProofDays }
  const read = readYaml(block.content)
  const complain = (text: string, line = 0) => complaints.push({ line: block.line + line, rule: 'plan-block', text })
  if ('complaint' in read) {
    complain(read.complaint.text, read.complaint.line)
    return { variables: [], scope: [], proofDays: usualProofDays }
  }
  return readSettings(read.value, complain)
}
