/** The container's time zone. */
import { readFile } from 'node:fs/promises'
import { Fault } from '#base/fault.ts'
import { isTheirs, putFile } from './managed.ts'
import type { Tree } from './tree.ts'

const zoneinfo = '/usr/share/zoneinfo'
const sound = /^[A-Za-z][A-Za-z0-9_+-]*(?:\/[A-Za-z0-9][A-Za-z0-9_+-]*){0,2}$/

/** @throws Fault `invalid` when neither the container nor the node knows the zone */
export async function setTimezone(tree: Tree, zone: string): Promise<void> {
  if (!sound.test(zone)) throw new Fault('invalid', `'${zone.slice(0, 100)}' is no time zone`)
  if (await isTheirs(tree, '/etc/localtime')) return
  const file = `${zoneinfo}/${zone}`
  if ((await tree.read(file)) !== undefined) await tree.link('/etc/localtime', `..${file}`)
  else {
    // Small systems come without the zones, and read this one file all the same.
    const rules = await readFile(file).catch((cause: unknown) => {
      throw new Fault('invalid', `neither the container nor the node has the time zone '${zone}'`, { cause })
    })
    await tree.remove('/etc/localtime')
    await tree.write('/etc/localtime', rules)
  }
  // Where a file says it as text too, both must say the same.
  if ((await tree.read('/etc/timezone')) !== undefined) await putFile(tree, '/etc/timezone', `${zone}\n`)
}
