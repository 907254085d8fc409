/** Shares of an SMB server, asked for by smbclient. */
import { Fault } from '#base/fault.ts'
import type { Host } from './host.ts'
import { runTool } from './tool.ts'

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
  const who = login === undefined ? ['--no-pass'] : ['--authentication-file=/dev/stdin']
  const input = login === undefined ? {} : { input: loginFile(login) }
  const argv = ['smbclient', '--grepable', '--list', `//${server}`, '--client-protection=sign', ...who] as const
  const { code, stdout, stderr } = await runTool(host, argv, { ...input, okCodes: [0, 1], timeoutMs: askMs })
  if (code !== 0) {
    const said = /NT_STATUS_\w+/.exec(`${stdout}\n${stderr}`)?.[0] ?? 'it does not answer as an SMB server does'
    throw new Fault('unavailable', `the server '${server}' does not list its shares: ${said}`)
  }
  return parseShares(stdout)
}

/** On standard input, so that no password is among the arguments. */
function loginFile({ username, password, domain }: SmbLogin): string {
  const lines = [`username=${username}`, `password=${password}`, ...(domain === undefined ? [] : [`domain=${domain}`])]
  return `${lines.join('\n')}\n`
}

/** Reads lines such as `Disk|share|remark`. */
export function parseShares(text: string): SmbShare[] {
  return [...text.matchAll(/^Disk\|([^|]+)\|(.*)$/gm)].map(([, name = '', description = '']) => ({ name, description }))
}
