/** Kernel settings under `/proc/sys`, named with slashes: `net/ipv4/ip_forward`. Those of the network differ per namespace. */
import { readFile, writeFile } from 'node:fs/promises'
import { Fault } from '#base/fault.ts'
import { codeOf } from '../files.ts'
import type { Host } from '../host.ts'
import { inNetns, type NetworkPlace } from './netns.ts'

/** The value without its newline. @throws Fault `unavailable` when this kernel has no such setting. */
export async function readSysctl(host: Host, name: string, place: NetworkPlace = {}): Promise<string> {
  if (place.netns !== undefined) {
    const { stdout } = await host.run(inNetns(place.netns, ['cat', pathOf(name)]))
    return stdout.trim()
  }
  try {
    return (await readFile(pathOf(name), 'utf8')).trim()
  } catch (cause) {
    throw sysctlFault(name, cause)
  }
}

export async function writeSysctl(host: Host, name: string, value: string, place: NetworkPlace = {}): Promise<void> {
  if (place.netns !== undefined) {
    // The kernel looks at the namespace of whoever opens the file, so a program inside has to do it.
    await host.run(inNetns(place.netns, ['tee', pathOf(name)]), { input: value })
    return
  }
  try {
    await writeFile(pathOf(name), value)
  } catch (cause) {
    throw sysctlFault(name, cause)
  }
}

function pathOf(name: string): string {
  if (!/^[A-Za-z0-9_-]+(\/[A-Za-z0-9_.-]+)+$/.test(name) || name.split('/').some((part) => /^\.+$/.test(part))) {
    throw new Fault('invalid', `'${name}' is no kernel setting`)
  }
  return `/proc/sys/${name}`
}

function sysctlFault(name: string, cause: unknown): unknown {
  const code = codeOf(cause)
  if (code === 'ENOENT') return new Fault('unavailable', `this kernel has no setting '${name}'`, { cause })
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') {
    return new Fault('denied', `the kernel setting '${name}' may not be changed here (${code})`, { cause })
  }
  return cause
}
