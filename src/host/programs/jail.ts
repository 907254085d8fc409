/**
 * A program that sees the machine's programs and one directory, and nothing else of it: no other file, no network, no
 * other process. It reads what somebody made to do harm, so whatever it can be talked into stays in that directory.
 *
 * Rejected: `chroot` into the directory, because then the program would have to come out of it.
 */
import type { Argv } from '../host.ts'

/** Where the directory is inside. */
export const jailedDirectory = '/within'

/** What files belong to, may be done with by root alone; everything else a jailed root can do without. */
const rightsOverFiles = ['chown', 'dac_override', 'fowner', 'fsetid', 'mknod', 'setfcap']

const sandbox = [
  ['--unshare-ipc', '--unshare-net', '--unshare-pid', '--unshare-uts', '--die-with-parent'],
  ['--ro-bind', '/usr', '/usr'],
  ...['bin', 'lib', 'lib64', 'sbin'].map((name) => ['--symlink', `usr/${name}`, `/${name}`]),
  // Who may be given which ids: a user namespace made inside is held to it.
  ...['passwd', 'subuid', 'subgid'].map((name) => ['--ro-bind-try', `/etc/${name}`, `/etc/${name}`]),
  ['--proc', '/proc'],
  ['--dev', '/dev'],
]

/** The program in a jail around this directory, which is where it begins. */
export function jailed(directory: string, argv: Argv): Argv {
  const place = ['--bind', directory, jailedDirectory, '--remount-ro', '/', '--chdir', jailedDirectory]
  return ['bwrap', ...sandbox.flat(), ...place, ...argv]
}

/** The program as a root that can do what it likes to files it sees, and nothing more. */
export function withRightsOverFiles(argv: Argv): Argv {
  const bounding = ['-all', ...rightsOverFiles.map((name) => `+${name}`)].join(',')
  return ['setpriv', '--no-new-privs', '--inh-caps=-all', `--bounding-set=${bounding}`, ...argv]
}
