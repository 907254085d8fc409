/** Programs a machine need not have: whoever asks for what only they can do is told which package brings them. */
import { Fault, isFault } from '#base/fault.ts'
import type { Argv, Host, RunOptions, RunResult } from './host.ts'

const packages: Readonly<Record<string, string>> = {
  btrfs: 'btrfs-progs',
  'iscsi-ls': 'libiscsi-bin',
  lvs: 'lvm2',
  'mkfs.xfs': 'xfsprogs',
  nsupdate: 'bind9-dnsutils',
  pvremove: 'lvm2',
  pvs: 'lvm2',
  sfdisk: 'fdisk',
  showmount: 'nfs-common',
  smbclient: 'smbclient',
  vgcfgbackup: 'lvm2',
  vgcfgrestore: 'lvm2',
  vgcreate: 'lvm2',
  vgremove: 'lvm2',
  vgs: 'lvm2',
  zpool: 'zfsutils-linux',
}

/** As `host.run`. @throws Fault `unavailable` naming the package where the program is not installed */
export async function runTool(host: Host, argv: Argv, options: RunOptions = {}): Promise<RunResult> {
  try {
    return await host.run(argv, options)
  } catch (cause) {
    const [program] = argv
    const home = packages[program]
    if (!isFault(cause, 'missing') || home === undefined) throw cause
    throw new Fault('unavailable', `the program '${program}' is not installed on this node; package '${home}' has it`, {
      cause,
      remedy: `Run \`apt-get install ${home}\` on the node.`,
    })
  }
}
