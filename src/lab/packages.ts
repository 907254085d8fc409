/** The list of system packages the launcher installs from, read for `hako doctor`. */
import type { Host } from '#host/host.ts'
import type { Check } from './preflight.ts'

export interface SystemPackage {
  readonly name: string
  /** Debian's words: `any`, `amd64`, `arm64`. */
  readonly architecture: string
  /** `run`: the node needs it. `test`: the tests alone. */
  readonly need: string
  readonly purpose: string
}

/** Lines of `name | architecture | need | purpose | purpose in Japanese`; `#` begins a comment. */
export function parsePackages(text: string): SystemPackage[] {
  return text
    .split('\n')
    .filter((line) => line.trim() !== '' && !line.startsWith('#'))
    .map((line) => line.split('|').map((word) => word.trim()))
    .map(([name = '', architecture = '', need = '', purpose = '']) => ({ name, architecture, need, purpose }))
}

const debianNames: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' }

export async function checkPackages(host: Host, list: string, architecture: string): Promise<Check> {
  const own = debianNames[architecture]
  const wanted = parsePackages(list).filter(
    ({ need, architecture: place }) => need === 'run' && (place === 'any' || place === own),
  )
  const format = '${db:Status-Status} ${Package}\\n'
  const names = wanted.map(({ name }) => name)
  const { stdout } = await host.run(['dpkg-query', '--show', `--showformat=${format}`, ...names], { okCodes: [0, 1] })
  const installed = new Set(stdout.split('\n').map((line) => line.replace(/^installed /, '')))
  const missing = wanted.filter(({ name }) => !installed.has(name))
  const words = missing.map(({ name, purpose }) => `${name} (${purpose})`).join(', ')
  return {
    name: { en: 'system packages', ja: 'システムパッケージ' },
    state: missing.length === 0 ? 'ok' : 'missing',
    found:
      missing.length === 0
        ? { en: `all ${wanted.length} are installed`, ja: `${wanted.length} 個すべて導入済み` }
        : { en: `not installed: ${words}`, ja: `未導入: ${words}` },
    means:
      missing.length === 0
        ? { en: 'nothing to install', ja: '追加は不要です' }
        : { en: './hako lab installs them', ja: './hako lab が導入します' },
  }
}
