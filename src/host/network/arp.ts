/** Whether somebody on a link has an IPv4 address, asked as a computer asks that is about to take it (RFC 5227). */
import type { Host } from '../host.ts'

/** False also where nobody can be asked: a link that is down, or has no such thing as ARP. */
export async function hasAnswer(host: Host, link: string, address: string): Promise<boolean> {
  const argv = ['busybox', 'arping', '-D', '-q', '-c', '2', '-w', '1', '-I', link, address] as const
  const { code } = await host.run(argv, { okCodes: [0, 1, 2] })
  return code === 1
}
