/** Every kind of storage there is. A new driver is one more line here. */
import { Fault } from '#base/fault.ts'
import type { StoragePlugin } from '../plugin.ts'
import { btrfs } from './btrfs.ts'
import { dir } from './dir.ts'
import { hakobune } from './hakobune.ts'
import { s3 } from './s3.ts'

export const storageTypes = ['btrfs', 'dir', 'hakobune', 's3'] as const

const plugins: readonly StoragePlugin[] = [btrfs, dir, hakobune, s3]

export function pluginOf(type: string): StoragePlugin {
  const plugin = plugins.find((one) => one.type === type)
  if (!plugin) throw new Fault('unavailable', `there is no driver for storages of type '${type}'`)
  return plugin
}
