/** The machine's switch for forwarding, which the nodes of many tests turn on and off side by side. */
import { readFile } from 'node:fs/promises'
import { machine } from '#host/exec.ts'
import { listChains } from '#host/network/nft.ts'
import { namesOf } from '#network/names.ts'

/** Where it would stand without the nodes of others: one that turned it on left its mark, and it was off before. */
export async function forwardingButForOthers(instance: string): Promise<string> {
  const before = await areOthersThere(instance)
  const found = (await readFile('/proc/sys/net/ipv4/ip_forward', 'utf8')).trim()
  return before || (await areOthersThere(instance)) ? '0' : found
}

async function areOthersThere(instance: string): Promise<boolean> {
  const marks = (await listChains(machine())).filter(({ name }) => name === 'forwarding_was_off')
  return marks.some(({ table }) => table !== namesOf(instance).table)
}
