/** Name servers this machine uses, for guests that live behind it. */
import { readIfPresent } from '../files.ts'

/** systemd-resolved puts itself into the first file, at an address only the machine reaches, and the real ones here. */
const files = ['/etc/resolv.conf', '/run/systemd/resolve/resolv.conf']

/** IPv4 addresses a guest can reach too; none when there are no such. */
export async function nameServers(): Promise<string[]> {
  for (const file of files) {
    const found = parseNameServers((await readIfPresent(file)) ?? '')
    if (found.length > 0) return found
  }
  return []
}

export function parseNameServers(text: string): string[] {
  const named = [...text.matchAll(/^nameserver\s+(\d+\.\d+\.\d+\.\d+)\s*$/gm)].map((match) => match[1] ?? '')
  return named.filter((address) => !address.startsWith('127.') && address !== '0.0.0.0')
}

/** Domains this machine looks names up in. */
export async function searchDomains(): Promise<string[]> {
  const text = (await readIfPresent('/etc/resolv.conf')) ?? ''
  return /^search\s+(\S.*)$/m.exec(text)?.[1]?.trim().split(/\s+/) ?? []
}
