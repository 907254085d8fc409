/** Every kind of storage there is. A new driver is two more lines here. */
import { Fault } from '#base/fault.ts'
import { loaderFor, once } from '#base/on-demand.ts'
import type { StoragePlugin } from '../plugin.ts'
import type * as btrfs from './btrfs.ts'
import type * as dir from './dir.ts'
import type * as hakobune from './hakobune.ts'
import type * as s3 from './s3.ts'

export const storageTypes = ['btrfs', 'dir', 'hakobune', 's3'] as const

const load = loaderFor(import.meta.url)
const plugins: Readonly<Record<(typeof storageTypes)[number], () => StoragePlugin>> = {
  btrfs: once(() => load<typeof btrfs>('./btrfs.ts').btrfs),
  dir: once(() => load<typeof dir>('./dir.ts').dir),
  hakobune: once(() => load<typeof hakobune>('./hakobune.ts').hakobune),
  s3: once(() => load<typeof s3>('./s3.ts').s3),
}

export function pluginOf(type: string): StoragePlugin {
  const known = storageTypes.find((one) => one === type)
  if (known === undefined) throw new Fault('unavailable', `there is no driver for storages of type '${type}'`)
  return plugins[known]()
}
