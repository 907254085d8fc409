/** What is written into a container's files before it starts, because it follows from its options. */
import type { Vmid } from '#base/ids.ts'
import type { Log } from '#base/log.ts'
import type { Options } from '../config.ts'
import { mountsOf } from './mountpoint.ts'
import { factsOfNode } from './node-facts.ts'
import { setUpForStart } from './setup/set-up.ts'
import { insideOf, toldOf } from './told.ts'

/** What is read only stays as it is. @param rootfs where its root is mounted */
export async function setUpBeforeStart(log: Log, vmid: Vmid, options: Options, rootfs: string): Promise<void> {
  const isReadOnly = mountsOf(options).some(({ name, values }) => name === 'rootfs' && values.ro === true)
  if (isReadOnly) return
  const warn = (line: string) => log.warn(`CT ${vmid}: ${line}`)
  await setUpForStart(insideOf(options, rootfs, warn), toldOf(vmid, options, await factsOfNode()))
}
