/**
 * System calls a container's processes are refused: what changes the kernel, and ways around the file system's rights.
 * The text is LXC's own language for such lists.
 */
import type { Features } from './features.ts'

const [notPermitted, notThere] = [1, 38]

export function seccompProfile({ keyctl }: Pick<Features, 'keyctl'>): string {
  const refused: readonly (readonly [string, number])[] = [
    ['kexec_load', notPermitted],
    ['kexec_file_load', notPermitted],
    ['open_by_handle_at', notPermitted],
    ['init_module', notPermitted],
    ['finit_module', notPermitted],
    ['delete_module', notPermitted],
    // Keyrings know user namespaces, but not every system inside can tell.
    ...(keyctl ? [] : [['keyctl', notThere] as const]),
  ]
  return [
    '2',
    'denylist',
    'reject_force_umount',
    '[all]',
    ...refused.map(([call, code]) => `${call} errno ${code}`),
    '',
  ].join('\n')
}
