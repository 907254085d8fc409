/** The lab is a node like any other; only its names differ, so that it stands beside whatever else is here. */
import { settingsFrom, type Settings } from '#settings.ts'

const names: Readonly<Record<string, string>> = {
  HAKO_INSTANCE: 'lab',
  HAKO_NODE: 'lab',
  HAKO_STATE_DIR: '/var/lib/hakobune/lab',
  HAKO_RUN_DIR: '/run/hakobune/lab',
  // Its own, so that removing the lab takes nothing from another node.
  HAKO_CACHE_DIR: '/var/cache/hakobune/lab',
  HAKO_BRIDGE: 'nat',
}

/** Variables of the environment win: a second lab can stand beside the first. */
export function labSettings(env: Readonly<Record<string, string | undefined>> = process.env): Settings {
  const set = Object.entries(env).filter(([name, value]) => name.startsWith('HAKO_') && value !== undefined)
  return settingsFrom({ ...names, ...Object.fromEntries(set) })
}
