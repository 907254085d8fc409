/**
 * Objects a plan makes or destroys, by name: `guest/101`, `backup/local:backup/vm/100/…`, `user/op@pve`.
 *
 * Which object a call destroys follows from the call, not from what the step says of itself.
 */
import type { ApiAct, ValueMap } from './step.ts'
import { textOf } from './template.ts'

type Method = ApiAct['method']

interface Kind {
  readonly path: RegExp
  /** From what the path holds. */
  readonly name: (parts: readonly string[]) => string
}

const kinds: readonly Kind[] = [
  { path: /^\/nodes\/[^/]+\/(?:qemu|lxc)\/(\d+)$/, name: ([id]) => `guest/${id}` },
  { path: /^\/nodes\/[^/]+\/(?:qemu|lxc)\/(\d+)\/snapshot\/([^/]+)$/, name: ([id, name]) => `snapshot/${id}/${name}` },
  { path: /^\/hako\/backups\/(.+)$/, name: ([volume]) => `backup/${volume}` },
  {
    path: /^\/nodes\/[^/]+\/storage\/([^/]+)\/content\/(.+)$/,
    name: ([storage = '', volume = '']) => `backup/${volume.includes(':') ? volume : `${storage}:${volume}`}`,
  },
  { path: /^\/access\/users\/([^/]+)$/, name: ([user]) => `user/${user}` },
  { path: /^\/access\/users\/([^/]+)\/token\/([^/]+)$/, name: ([user, token]) => `token/${user}!${token}` },
  { path: /^\/access\/groups\/([^/]+)$/, name: ([group]) => `group/${group}` },
  { path: /^\/access\/roles\/([^/]+)$/, name: ([role]) => `role/${role}` },
  { path: /^\/pools\/([^/]+)$/, name: ([pool]) => `pool/${pool}` },
  { path: /^\/storage\/([^/]+)$/, name: ([storage]) => `storage/${storage}` },
  { path: /^\/cluster\/backup\/([^/]+)$/, name: ([job]) => `job/${job}` },
  { path: /^\/hako\/node-key$/, name: () => 'key/node' },
]

/** Calls that destroy without saying DELETE: by the path, and by the parameter that makes them do so. */
const overwriting: readonly { readonly path: RegExp; readonly when?: string }[] = [
  { path: /^\/nodes\/[^/]+\/(?:qemu|lxc)\/(\d+)\/snapshot\/[^/]+\/rollback$/ },
  { path: /^\/hako\/restore$/, when: 'force' },
  { path: /^\/nodes\/[^/]+\/(?:qemu|lxc)$/, when: 'force' },
  { path: /^\/nodes\/[^/]+\/disks\/(?:wipedisk|initgpt)$/ },
]

/**
 * Name of the object a call destroys; nothing for a call that destroys none.
 * @param path filled, with its parts percent-encoded
 */
export function destroyedBy(method: Method, path: string, params: ValueMap): string | undefined {
  const plain = path.split('/').map(decode).join('/')
  if (method === 'DELETE') return objectAt(plain) ?? `path${plain}`
  const over = overwriting.find((one) => one.path.test(plain))
  if (method === 'GET' || !over) return undefined
  const [, vmid] = over.path.exec(plain) ?? []
  if (over.when === undefined) return vmid === undefined ? `path${plain}` : `guest/${vmid}`
  const isSet = ['1', 'true'].includes(textOf(params[over.when] ?? ''))
  return isSet ? `guest/${textOf(params.vmid ?? '')}` : undefined
}

function objectAt(path: string): string | undefined {
  for (const { path: shape, name } of kinds) {
    const found = shape.exec(path)
    if (found) return name(found.slice(1))
  }
  return undefined
}

/** Where the object is read, to see whether it is there; nothing for a kind that cannot be asked so. */
export function pathsOf(object: string, node: string): readonly string[] {
  const [, kind = '', name = ''] = /^([a-z]+)\/(.*)$/s.exec(object) ?? []
  const one = encodeURIComponent(name)
  switch (kind) {
    case 'guest':
      return ['qemu', 'lxc'].map((type) => `/nodes/${encodeURIComponent(node)}/${type}/${one}/status/current`)
    case 'backup':
      return [`/hako/backups/${one}`]
    case 'user':
      return [`/access/users/${one}`]
    case 'token': {
      const [user = '', token = ''] = name.split('!')
      return [`/access/users/${encodeURIComponent(user)}/token/${encodeURIComponent(token)}`]
    }
    case 'group':
      return [`/access/groups/${one}`]
    case 'role':
      return [`/access/roles/${one}`]
    case 'pool':
      return [`/pools/${one}`]
    case 'storage':
      return [`/storage/${one}`]
    case 'job':
      return [`/cluster/backup/${one}`]
    case 'key':
      return [`/hako/node-key`]
    case 'snapshot': {
      const [id = '', snapshot = ''] = name.split('/')
      return ['qemu', 'lxc'].map(
        (type) => `/nodes/${encodeURIComponent(node)}/${type}/${id}/snapshot/${encodeURIComponent(snapshot)}/config`,
      )
    }
    default:
      return []
  }
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}
