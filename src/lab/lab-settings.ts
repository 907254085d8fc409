/** The lab is a node like any other; only its names differ, so that it stands beside whatever else is here. */
import { settingsFrom, type Settings } from '#settings.ts'

const namesOf = (instance: string): Readonly<Record<string, string>> => ({
  HAKO_INSTANCE: instance,
  HAKO_NODE: 'lab',
  HAKO_STATE_DIR: `/var/lib/hakobune/${instance}`,
  HAKO_RUN_DIR: `/run/hakobune/${instance}`,
  // Its own, so that removing the lab takes nothing from another node.
  HAKO_CACHE_DIR: `/var/cache/hakobune/${instance}`,
  HAKO_BRIDGE: 'nat',
})

/** What may differ for a lab that keeps its names. */
const free: readonly string[] = ['HAKO_API_HOST', 'HAKO_API_PORT', 'HAKO_NODE', 'HAKO_SPICE_PORT', 'HAKO_UID_BASE']

/**
 * A second lab can stand beside the first, under an instance of its own. Without one, a path left in the
 * environment by other work must not lead the lab to a node people rely on.
 */
export function labSettings(env: Readonly<Record<string, string | undefined>> = process.env): Settings {
  const { HAKO_INSTANCE: instance = 'lab' } = env
  const isOwnInstance = env.HAKO_INSTANCE !== undefined
  const set = Object.entries(env).filter(
    ([name, value]) => name.startsWith('HAKO_') && value !== undefined && (isOwnInstance || free.includes(name)),
  )
  return settingsFrom({ ...namesOf(instance), ...Object.fromEntries(set) })
}
