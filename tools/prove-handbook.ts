/**
 * `node tools/prove-handbook.ts INSTANCE`: runs the plans of the handbook on a node that is a lab, and takes their evidence
 * into the manuscript. The commands in the chapters become what was run.
 */
import { execFileSync } from 'node:child_process'
import { cpSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { blocksIn, readProofs, withCommands } from './proofs.ts'

const root = join(import.meta.dirname, '..')
const manuscript = join(root, 'manuscript')
const [instance] = process.argv.slice(2)
if (instance === undefined) throw new Error('name the instance of the lab: node tools/prove-handbook.ts lab')

/** What plans destroy is named by a person, who is whoever wrote this line. */
const destroyed: Readonly<Record<string, string>> = { 'plans/restore-over.ja.md': 'guest/9101' }

const plans = new Set(blocksIn(manuscript).flatMap(({ step }) => step?.split('#', 1) ?? []))
const state = join('/var/lib/hakobune', instance)
const runs = join(manuscript, 'runs')
const folder = mkdtempSync(join(tmpdir(), 'hako-handbook-'))
try {
  rmSync(runs, { recursive: true, force: true })
  mkdirSync(runs)
  cpSync(join(root, 'plans'), join(folder, 'plans'), { recursive: true })
  for (const plan of plans) {
    const before = new Set(evidence())
    run('plan', 'run', join(folder, plan), '--in', 'lab', ...(destroyed[plan] ? ['--confirm', destroyed[plan]] : []))
    for (const name of evidence())
      if (!before.has(name)) cpSync(join(state, 'evidence', name), join(runs, name), { recursive: true })
  }
  cpSync(join(state, 'keys/evidence.pub'), join(runs, 'evidence.pub'))
  const proofs = await readProofs(manuscript)
  for (const file of new Set(blocksIn(manuscript).map((one) => join(manuscript, one.file)))) {
    writeFileSync(file, withCommands(readFileSync(file, 'utf8'), proofs))
  }
} finally {
  rmSync(folder, { recursive: true })
}

/** Of plans; drills have evidence of their own. */
function evidence(): string[] {
  return globSync('*', { cwd: join(state, 'evidence') }).filter((name) => name.includes('plan'))
}

function run(...words: readonly string[]): void {
  execFileSync(join(root, 'hako'), ['--instance', String(instance), ...words], { stdio: 'inherit' })
}
