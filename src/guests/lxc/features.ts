/** What a container may beyond the ordinary: `nesting=1,keyctl=1`. */
import type { Errors } from '#base/schema/check.ts'
import { readPropertyString } from '#base/schema/property-string.ts'
import { boolean, optional, string } from '#base/schema/schema.ts'
import type { PropertyFormat, PropertyKey, Schema } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'
import { isOn } from '../config.ts'

const key = (schema: Schema): PropertyKey => ({ schema: optional(schema) })

export const featuresFormat: PropertyFormat = {
  force_rw_sys: key(boolean({ description: 'Mount /sys writable without a user namespace.', default: false })),
  fuse: key(boolean({ description: 'File systems by FUSE.', default: false })),
  keyctl: key(boolean({ description: 'The keyrings of the kernel.', default: false })),
  mknod: key(boolean({ description: 'Make device nodes.', default: false })),
  mount: key(string({ description: 'File systems it may mount.', pattern: /[a-zA-Z0-9_; ]+/, maxLength: 256 })),
  nesting: key(boolean({ description: 'Containers inside.', default: false })),
}

export interface Features {
  readonly nesting: boolean
  readonly keyctl: boolean
  readonly fuse: boolean
  /** Its /sys is writable, as far as the kernel lets its root write there. */
  readonly forceRwSys: boolean
  /** Kinds of file systems it may mount, beyond those everybody may. */
  readonly mount: readonly string[]
}

export function featuresOf({ features = '' }: Options): Features {
  const values = readPropertyString(featuresFormat, features, 'features')
  const is = (name: string) => values[name] === true
  const mount = typeof values.mount === 'string' ? values.mount.split(/[; ]+/).filter(Boolean) : []
  return { nesting: is('nesting'), keyctl: is('keyctl'), fuse: is('fuse'), forceRwSys: is('force_rw_sys'), mount }
}

/** What the kernel lets root of a user namespace mount. */
const mountable = 'binfmt_misc bpf cgroup cgroup2 devpts fuse mqueue overlay proc ramfs sysfs tmpfs'.split(' ')

export function featureErrors(options: Options): Errors {
  const { features } = options
  if (features === undefined) return {}
  const { mknod } = readPropertyString(featuresFormat, features, 'features')
  const { forceRwSys, mount } = featuresOf(options)
  const errors = (text: string) => ({ features: text })
  if (!isUnprivileged(options)) {
    return forceRwSys
      ? errors('force_rw_sys: without a user namespace it would open settings of the node itself: leave it out')
      : {}
  }
  if (mknod === true) {
    return errors('mknod: nobody in a user namespace makes devices: give it the one it needs, dev0=/dev/NAME')
  }
  const beyond = mount.find((type) => !mountable.includes(type.replace(/^fuse.*/, 'fuse')))
  if (beyond === undefined) return {}
  return errors(
    `mount: nobody in a user namespace mounts '${beyond}': mount it on the node and give the folder, mp0=/FOLDER,mp=/PLACE`,
  )
}

/** Without the word unprivileged: containers have a user namespace of their own unless root says otherwise. */
export function isUnprivileged({ unprivileged }: Options): boolean {
  return isOn(unprivileged, true)
}

/** True for features that only root may give: all but containers in a user namespace of their own. */
export function needsRoot(features: string): boolean {
  const values = readPropertyString(featuresFormat, features, 'features')
  return Object.entries(values).some(([name, value]) => name !== 'nesting' && value !== false)
}
