/**
 * Commands that need no node: bring up the lab, look at the machine, check evidence, print completion.
 * Each loads its own code only when called, because most calls are none of these.
 */
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '#base/fault.ts'
import type { ChainVerdict } from '#recovery/chain.ts'
import type { EvidenceManifest } from '#recovery/evidence.ts'
import type { Connection } from './connection.ts'
import { datastoreCommands } from './datastore/commands.ts'
import { exitCodes } from './exit.ts'
import { planCommands } from './plan/commands.ts'
import type { Terminal } from './terminal.ts'
import { type Language, say } from './text.ts'

export interface LocalText {
  readonly en: string
  readonly ja: string
}

export interface LocalOption extends LocalText {
  /** What it stands below in the help, behind those that stand below nothing. */
  readonly heading?: LocalText
  /** Takes no value. */
  readonly isFlag?: boolean
  /** A flag that can also be taken back: `--no-…`. */
  readonly isSwitch?: boolean
  /** May be given several times. */
  readonly isMany?: boolean
}

export interface LocalCommand {
  readonly words: readonly string[]
  readonly usage: string
  readonly description: LocalText
  readonly options?: Readonly<Record<string, LocalOption>>
  readonly examples: readonly string[]
  /** @returns the exit code */
  readonly run: (args: readonly string[], terminal: Terminal, outside: Outside) => Promise<number>
}

/** What a command needs that works with a file here and a node there. */
export interface Outside {
  readonly connect: () => Promise<Connection>
  readonly env: Readonly<Record<string, string | undefined>>
}

const text = (description: string) =>
  ({ type: 'string', description, required: false, multiple: false, isSecret: false }) as const

export const localCommands: readonly LocalCommand[] = [
  {
    words: ['lab', 'down'],
    usage: 'lab down',
    description: {
      en: 'Remove everything the lab made on this machine.',
      ja: 'ラボがこのマシンに作ったものをすべて取り除く。',
    },
    examples: ['lab down'],
    run: async (args, terminal) => {
      await refuseArguments(args)
      return (await import('#lab/command.ts')).labDown(terminal)
    },
  },
  {
    words: ['lab'],
    usage: 'lab [--exit] [--port N]',
    description: {
      en: 'From nothing to a proven restore: a node, a VM and a container, their backups, and a drill of each.',
      ja: '何もない状態から復元の証明まで: ノード、VM とコンテナ、そのバックアップと復元訓練。',
    },
    examples: ['lab', 'lab --exit', 'lab down'],
    run: async (args, terminal) => (await import('#lab/command.ts')).labUp(args, terminal),
  },
  {
    words: ['doctor'],
    usage: 'doctor',
    description: {
      en: 'Look at this machine: what is there, what is missing, what to do.',
      ja: 'このマシンの状態を調べ、足りないものと対処を示す。',
    },
    examples: ['doctor', 'doctor -o json'],
    run: async (args, terminal) => {
      await refuseArguments(args)
      return (await import('#lab/command.ts')).doctor(args, terminal)
    },
  },
  {
    words: ['evidence', 'verify'],
    usage: 'evidence verify <dir> [--key FILE]',
    description: {
      en: 'Check a directory of evidence, or one that holds all of a node, against a public key; needs no node and no network.',
      ja: '証跡のディレクトリ、またはノードの証跡すべてを収めたディレクトリを公開鍵で検証する。ノードもネットワークも不要。',
    },
    examples: [
      'evidence verify ./20260101T000041Z-vm-100 --key evidence.pub',
      'evidence verify ./evidence --key evidence.pub',
    ],
    run: verifyEvidenceCommand,
  },
  {
    words: ['storage', 'template-index'],
    usage: 'storage template-index <dir>',
    description: {
      en: 'Print the index of a directory of templates, for a site that offers them; sign it with gpg.',
      ja: 'テンプレートのディレクトリの一覧を出力する。配布サイト用。gpg で署名する。',
    },
    examples: ['storage template-index /srv/templates > /srv/templates/index.dat'],
    run: async (args, terminal) => {
      const { parseFor } = await import('./arguments.ts')
      const { positionals } = parseFor({ positional: ['dir'], options: {} }, args)
      const [directory, ...extra] = positionals
      if (directory === undefined || extra.length > 0)
        throw new Fault('invalid', 'name one directory: hako storage template-index <dir>')
      terminal.out((await (await import('./template-index.ts')).templateIndex(directory)).trimEnd())
      return exitCodes.ok
    },
  },
  ...datastoreCommands,
  ...planCommands,
  {
    words: ['completion'],
    usage: 'completion bash|zsh',
    description: { en: 'Print the completion script for a shell.', ja: 'シェルの補完スクリプトを出力する。' },
    examples: ['completion bash > /etc/bash_completion.d/hako', 'completion zsh'],
    run: async (args, terminal) => {
      const { completionScript } = await import('./complete.ts')
      terminal.out(completionScript(args[0]))
      return exitCodes.ok
    },
  },
]

/** Only the options that stand everywhere. @throws Fault `invalid`: nothing is done by half a command */
async function refuseArguments(args: readonly string[]): Promise<void> {
  const { parseFor } = await import('./arguments.ts')
  const { positionals } = parseFor({ positional: [], options: {} }, args)
  if (positionals.length > 0)
    throw new Fault('invalid', `'${positionals.join(' ')}' is too much: this command takes no plain argument`)
}

async function verifyEvidenceCommand(args: readonly string[], terminal: Terminal): Promise<number> {
  const { verifyEvidence } = await import('#recovery/evidence.ts')
  const [{ parseFor }, { printed }] = await Promise.all([import('./arguments.ts'), import('./print.ts')])
  const { positionals, params, global } = parseFor(
    { positional: ['dir'], options: { dir: text('Directory.'), key: text('Public key in PEM form.') } },
    args,
  )
  const [directory, ...extra] = positionals
  if (directory === undefined || extra.length > 0)
    throw new Fault('invalid', 'name one directory: hako evidence verify <dir> [--key FILE]')
  if (!(await stat(directory).catch(() => undefined))?.isDirectory())
    throw new Fault('missing', `directory '${directory}' does not exist`, {
      remedy: 'The evidence of each drill is a directory of its own: hako evidence list',
    })
  const isOfMany = await holdsMany(directory)
  // On the node itself the key lies one or two directories up; anywhere else it must be named.
  const usualKey = join(directory, isOfMany ? '../keys/evidence.pub' : '../../keys/evidence.pub')
  const keyPath = typeof params.key === 'string' ? params.key : usualKey
  const publicKey = await readFile(keyPath, 'utf8').catch((cause: unknown) => {
    throw new Fault('missing', `public key '${keyPath}' does not exist`, {
      cause,
      remedy: "Name the node's evidence.pub with --key.",
    })
  })
  const verdict = isOfMany ? await verifyAll(directory, publicKey) : await verifyEvidence(directory, publicKey)
  if (global.output !== 'table')
    terminal.out(await printed(verdict, { format: global.output, language: terminal.language, width: terminal.width }))
  else if ('evidence' in verdict && verdict.ok)
    terminal.out(say(terminal.language, 'chainWhole', String(verdict.evidence)))
  else if ('manifest' in verdict && verdict.ok)
    terminal.out(await verifiedText(directory, publicKey, verdict.manifest, terminal.language))
  else for (const complaint of verdict.complaints) terminal.out(complaint)
  return verdict.ok ? exitCodes.ok : exitCodes.unproven
}

/** Whether it is the folder of a node's evidence rather than one of them. */
async function holdsMany(directory: string): Promise<boolean> {
  const isThere = async (name: string) => (await stat(join(directory, name)).catch(() => undefined)) !== undefined
  if ((await isThere('manifest.json')) || (await isThere('manifest.sig'))) return false
  const { evidenceIn } = await import('#recovery/chain.ts')
  const names = await evidenceIn(directory)
  return (await Promise.all(names.map((name) => isThere(join(name, 'manifest.json'))))).includes(true)
}

/** Each of them, and the chain they are. */
async function verifyAll(directory: string, publicKey: string): Promise<ChainVerdict> {
  const [{ verifyEvidence }, { evidenceIn, verifyChain }] = await Promise.all([
    import('#recovery/evidence.ts'),
    import('#recovery/chain.ts'),
  ])
  const chain = await verifyChain(directory, publicKey)
  const complaints: string[] = []
  for (const name of await evidenceIn(directory)) {
    const verdict = await verifyEvidence(join(directory, name), publicKey)
    complaints.push(...verdict.complaints.map((text) => `${name}: ${text}`))
  }
  const all = [...new Set([...complaints, ...chain.complaints])]
  return { ...chain, ok: all.length === 0, complaints: all }
}

/** What is vouched for, by whose key: an unchanged record of a failed drill is no proof of a recovery. */
async function verifiedText(
  directory: string,
  publicKey: string,
  manifest: EvidenceManifest | undefined,
  language: Language,
): Promise<string> {
  const { createHash, createPublicKey } = await import('node:crypto')
  const der = createPublicKey(publicKey).export({ type: 'spki', format: 'der' })
  const record: unknown = JSON.parse(await readFile(join(directory, 'record.json'), 'utf8'))
  const quote: unknown = typeof record === 'object' && record !== null ? Reflect.get(record, 'quote') : undefined
  return [
    typeof quote === 'string' ? quote : directory,
    say(
      language,
      'unchanged',
      String(manifest?.files.length ?? 0),
      String(manifest?.signed ?? ''),
      String(manifest?.node ?? ''),
    ),
    say(language, 'keyOf', createHash('sha256').update(der).digest('hex')),
  ].join('\n')
}
