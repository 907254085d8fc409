/** Shares of an SMB server, asked for by smbclient. */
import { Fault } from '#base/fault.ts'
import type { Host } from '../host.ts'
import { runTool } from '../tool.ts'

export interface SmbLogin {
  readonly username: string
  readonly password: string
  readonly domain?: string | undefined
}

export interface SmbShare {
  readonly name: string
  readonly description: string
}

const askMs = 20_000

/** Folders only; without a login as a guest. @throws Fault `unavailable` with what the server says */
export async function smbShares(host: Host, server: string, login?: SmbLogin): Promise<SmbShare[]> {
  const domain = login?.domain === undefined ? [] : [`--workgroup=${login.domain}`]
  const who = login === undefined ? ['--no-pass'] : [`--user=${login.username}`, ...domain]
  // The password on standard input, so that it is neither among the arguments nor in the environment.
  const secret = login === undefined ? {} : { input: `${login.password}\n`, env: { PASSWD_FD: '0' } }
  const argv = ['smbclient', '--grepable', '--list', `//${server}`, '--client-protection=sign', ...who] as const
  const { code, stdout, stderr } = await runTool(host, argv, { ...secret, okCodes: [0, 1], timeoutMs: askMs })
  if (code !== 0) {
    const said = /NT_STATUS_\w+/.exec(`${stdout}\n${stderr}`)?.[0] ?? 'it does not answer as an SMB server does'
    throw new Fault('unavailable', `the server '${server}' does not list its shares: ${said}`)
  }
  return parseShares(stdout)
}

/** Reads lines such as `Disk|share|remark`. */
export function parseShares(text: string): SmbShare[] {
  return [...text.matchAll(/^Disk\|([^|]+)\|(.*)$/gm)].map(([, name = '', description = '']) => ({ name, description }))
}
