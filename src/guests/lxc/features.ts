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
}

export function featuresOf({ features = '' }: Options): Features {
  const values = readPropertyString(featuresFormat, features, 'features')
  return { nesting: values.nesting === true, keyctl: values.keyctl === true, fuse: values.fuse === true }
}

export function featureErrors({ features }: Options): Errors {
  if (features === undefined) return {}
  const values = readPropertyString(featuresFormat, features, 'features')
  const without = ['mknod', 'mount', 'force_rw_sys'].find(
    (name) => values[name] !== undefined && values[name] !== false,
  )
  return without === undefined ? {} : { features: `${without} is not supported by this release: leave it out` }
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
