/**
 * The mark that says a state directory is a lab's. `hako lab down` removes everything of an instance, so it
 * asks for the mark first: variables of the environment may point it at a node people rely on.
 */
import { access, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import { makeDirectory } from '#host/files.ts'
import { labMark, type Settings } from '#settings.ts'

/** @throws Fault `conflict` when a node that is no lab lives there */
export async function markAsLab(settings: Settings): Promise<void> {
  await requireLab(settings)
  await makeDirectory(settings.stateDir)
  await writeFile(labMark(settings), 'Made by `hako lab`; `hako lab down` removes it with all of its instance.\n')
}

/** @throws Fault `conflict` */
export async function requireLab(settings: Pick<Settings, 'stateDir'>): Promise<void> {
  const isThere = (path: string) =>
    access(path).then(
      () => true,
      () => false,
    )
  if ((await isThere(join(settings.stateDir, 'store.sqlite'))) && !(await isThere(labMark(settings)))) {
    throw new Fault('conflict', `'${settings.stateDir}' holds a node that is no lab`, {
      remedy: 'The variables HAKO_STATE_DIR and HAKO_INSTANCE name it: unset them.',
    })
  }
}
