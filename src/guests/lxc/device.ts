/** Devices of the node a container may use: `/dev/ttyUSB0,mode=0660,gid=20`. */
import { readPropertyString } from '#base/schema/property-string.ts'
import { boolean, integer, optional, string } from '#base/schema/schema.ts'
import type { PropertyFormat } from '#base/schema/schema.ts'
import type { Options } from '../config.ts'

export const deviceCount = 256

const id = (description: string) => ({ schema: optional(integer({ description, minimum: 0, maximum: 65_535 })) })

export const deviceFormat: PropertyFormat = {
  path: {
    schema: optional(string({ description: 'Device of the node.', format: 'pve-lxc-dev-string', maxLength: 256 })),
    isDefaultKey: true,
  },
  'deny-write': { schema: optional(boolean({ description: 'Reading alone.', default: false })) },
  gid: id('Its group inside.'),
  mode: { schema: optional(string({ description: 'Its mode.', pattern: /0[0-7]{3}/, maxLength: 4 })) },
  uid: id('Its owner inside.'),
}

export interface Device {
  readonly name: string
  readonly path: string
  readonly uid: number
  readonly gid: number
  readonly mode: number
}

const usualMode = 0o660

export function devicesOf(options: Options): Device[] {
  const names = Array.from({ length: deviceCount }, (_, index) => `dev${index}`)
  return names.flatMap((name): Device[] => {
    const text = options[name]
    if (text === undefined) return []
    const { path, uid = 0, gid = 0, mode, ...rest } = readPropertyString(deviceFormat, text, name)
    const wanted = typeof mode === 'string' ? Number.parseInt(mode, 8) : usualMode
    const [writable, readOnly] = [wanted, wanted & ~0o222]
    return [
      {
        name,
        path: String(path ?? ''),
        uid: Number(uid),
        gid: Number(gid),
        mode: rest['deny-write'] === true ? readOnly : writable,
      },
    ]
  })
}
