/**
 * `local`: the storage every node has, inside the node's own state. As in Proxmox VE it always exists: it can be
 * changed and disabled, and to remove it is to have it again as a new node has it.
 */
import { join } from 'node:path'
import type { Settings } from '#settings.ts'
import type { StorageInput } from './config.ts'

export const localName = 'local'

const content = ['images', 'rootdir', 'iso', 'vztmpl', 'backup', 'snippets', 'import'] as const

export function localStorage({ stateDir }: Pick<Settings, 'stateDir'>): StorageInput & { readonly path: string } {
  return {
    storage: localName,
    type: 'dir',
    path: join(stateDir, 'storage', localName),
    content: content.join(','),
  }
}
