/** Who may log in as root, and host keys of the container's own: those of a template are known to everybody who has it. */
import type { Host } from '#host/host.ts'
import { type KeyType, keyTypes, newHostKey } from '#host/system/ssh-keygen.ts'
import type { Tree } from './tree.ts'

const authorized = '/root/.ssh/authorized_keys'

/** Adds the keys that are not there yet. */
export async function authorizeRoot(tree: Tree, keys: readonly string[]): Promise<void> {
  const before = (await tree.read(authorized)) ?? ''
  const known = new Set(before.split('\n').map((line) => line.trim()))
  const added = keys.map((key) => key.trim()).filter((key) => key !== '' && !known.has(key))
  if (added.length === 0) return
  await tree.makeDirectory('/root', 0o700)
  await tree.makeDirectory('/root/.ssh', 0o700)
  const start = before === '' || before.endsWith('\n') ? before : `${before}\n`
  await tree.write(authorized, `${start}${added.join('\n')}\n`, { mode: 0o600 })
}

/** Of the kinds it had, and of all when it has a server and no keys. */
export async function renewHostKeys(host: Host, tree: Tree, hostname: string): Promise<KeyType[]> {
  const names = await tree.names('/etc/ssh')
  const there = keyTypes.filter((type) => names.includes(`ssh_host_${type}_key`))
  const hasServer = (await tree.exists('/usr/sbin/sshd')) || (await tree.exists('/usr/bin/sshd'))
  const wanted = there.length > 0 ? there : hasServer ? [...keyTypes] : []
  for (const type of wanted) {
    const { secret, open } = await newHostKey(host, type, `root@${hostname}`)
    await tree.write(`/etc/ssh/ssh_host_${type}_key`, secret, { mode: 0o600, isPrivate: true })
    await tree.write(`/etc/ssh/ssh_host_${type}_key.pub`, open)
  }
  // Kinds nobody makes any more.
  for (const type of ['dsa', 'rsa1']) {
    await tree.remove(`/etc/ssh/ssh_host_${type}_key`)
    await tree.remove(`/etc/ssh/ssh_host_${type}_key.pub`)
  }
  return wanted
}
