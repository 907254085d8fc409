/** Every kind of storage there is. A new driver is one more line here. */
import { Fault } from '#base/fault.ts'
import type { StoragePlugin } from '../plugin.ts'
import { dir } from './dir.ts'

export const storageTypes = ['dir'] as const

const plugins: readonly StoragePlugin[] = [dir]

export function pluginOf(type: string): StoragePlugin {
  const plugin = plugins.find((one) => one.type === type)
  if (!plugin) throw new Fault('unavailable', `there is no driver for storages of type '${type}'`)
  return plugin
}
