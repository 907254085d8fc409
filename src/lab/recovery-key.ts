/**
 * The recovery key of the lab's node: without one nothing is backed up. The lab does what an owner does: has one made, writes
 * it down, and shows what was written down. An owner keeps it elsewhere; the lab's goes with the lab.
 */
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import { readIfPresent, writeFileAtomic } from '#host/files.ts'
import { fieldsOf } from './api.ts'
import { type Lab, step } from './lab-guest.ts'
import { say } from './text.ts'

/** Path of the file it is written down in. */
export function recoveryKeyFile({ settings }: Pick<Lab, 'settings'>): string {
  return join(settings.stateDir, 'recovery-key.txt')
}

/** Makes true that somebody holds the recovery key. It is shown when it is made. */
export async function ensureRecoveryKey(lab: Lab): Promise<void> {
  const { api, terminal } = lab
  const path = recoveryKeyFile(lab)
  if (fieldsOf(await api.get('/hako/recovery-key')).state === 'confirmed') {
    terminal.show(`  ✓ ${say(terminal.language, 'recoveryKeyThere', path)}`)
    return
  }
  const key = await step(lab, 'recoveryKey', async () => {
    const { key: made } = fieldsOf(await api.post('/hako/recovery-key'))
    if (typeof made !== 'string') throw new Fault('failed', 'the node printed no recovery key')
    await writeFileAtomic(path, `${made}\n`)
    // What counts is what was written down.
    const written = ((await readIfPresent(path)) ?? '').trim()
    await api.put('/hako/recovery-key', { key: written })
    return written
  })
  terminal.out(`       ${key}`)
  terminal.out(`       ${say(terminal.language, 'recoveryKeyNote', path)}\n`)
}
