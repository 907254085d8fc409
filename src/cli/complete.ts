/** Completion for bash and zsh: the shell asks `hako __complete WORDS…`, the answer is one candidate per line. */
import { Fault } from '#base/fault.ts'
import type { Command } from '#rest/command.ts'
import { globalOptions } from './arguments.ts'
import { findCommand, name } from './command-tree.ts'

const bash = `# hako completion for bash: source <(hako completion bash)
_hako() {
  # Cut by spaces alone: COMP_WORDS also cuts at the colons of volumes and tasks.
  local line=\${COMP_LINE:0:COMP_POINT} IFS=$' \\t' words
  read -ra words <<< "$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  local open=\${words[-1]} IFS=$'\\n'
  COMPREPLY=($("\${words[0]}" __complete "\${words[@]:1}" 2>/dev/null))
  # What bash replaces begins after the last colon.
  [[ $open == *:* && $COMP_WORDBREAKS == *:* ]] && COMPREPLY=("\${COMPREPLY[@]#"\${open%"\${open##*:}"}"}")
}
complete -o default -F _hako hako ./hako
`
const zsh = `#compdef hako
# hako completion for zsh: source <(hako completion zsh)
_hako() {
  local -a candidates
  candidates=("\${(@f)$("\${words[1]}" __complete "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  [[ -n "$candidates" ]] && compadd -a candidates || _files
}
compdef _hako hako ./hako
`

/** @throws Fault `invalid` for another shell */
export function completionScript(shell: string | undefined): string {
  if (shell === 'bash') return bash
  if (shell === 'zsh') return zsh
  throw new Fault('invalid', `no completion for '${shell ?? ''}': it must be bash or zsh`)
}

/** Positional parameters before the cursor. */
export type Given = Readonly<Record<string, string>>

/**
 * What may stand where the cursor is.
 * @param typed the words so far, the last one unfinished (maybe empty)
 * @param idsOf asks the node for the objects a parameter may name
 */
export async function candidates(
  commands: readonly Command[],
  localNames: readonly (readonly string[])[],
  typed: readonly string[],
  idsOf: (command: Command, name: string, given: Given) => Promise<readonly string[]>,
): Promise<string[]> {
  const [done, open] = [typed.slice(0, -1), typed.at(-1) ?? '']
  const found = findCommand(commands, done)
  const starting = (words: readonly string[]) => [...new Set(words)].filter((word) => word.startsWith(open)).toSorted()
  if (!found) {
    const all = [...commands.map(({ words }) => words), ...localNames]
    const next = all
      .filter((words) => done.every((word, at) => words[at] === word))
      .map((words) => words[done.length] ?? '')
    return starting(next.filter(Boolean))
  }
  const { command, rest } = found
  const option = /^--([\w-]+)$/.exec(done.at(-1) ?? '')?.[1]
  const allowed = option === undefined ? undefined : command.options[option]?.enum
  if (allowed) return starting(allowed)
  if (option === 'output') return starting(['table', 'json', 'yaml', 'ndjson', 'id'])
  if (open.startsWith('-')) {
    const own = Object.keys(command.options).filter((name) => !command.positional.includes(name) && name !== 'node')
    return starting([...own, ...Object.keys(globalOptions)].map((name) => `--${name}`))
  }
  const plain = rest.filter((word, at) => !word.startsWith('-') && !takesNext(command, rest[at - 1]))
  const given = Object.fromEntries(command.positional.slice(0, plain.length).map((name, at) => [name, plain[at] ?? '']))
  if (takesNext(command, done.at(-1))) return option === undefined ? [] : starting(await idsOf(command, option, given))
  const positional = command.positional[plain.length]
  return positional === undefined ? [] : starting(await idsOf(command, positional, given))
}

/** An option of the command whose value is the next word. */
function takesNext({ options }: Command, word = ''): boolean {
  const facts = word.startsWith('--') ? options[word.slice(2)] : undefined
  return facts !== undefined && facts.type !== 'boolean'
}

/** Which list knows the objects a positional names, and in which column. */
const lists: Readonly<Record<string, readonly [list: string, column: string]>> = {
  vmid: ['vm list', 'vmid'],
  archive: ['backup list', 'volid'],
  volume: ['backup list', 'volid'],
  drill: ['drill list', 'id'],
  upid: ['task list', 'upid'],
  storage: ['storage list', 'storage'],
  userid: ['user list', 'userid'],
  users: ['user list', 'userid'],
  roleid: ['role list', 'roleid'],
  roles: ['role list', 'roleid'],
  groupid: ['group list', 'groupid'],
  groups: ['group list', 'groupid'],
  pool: ['pool list', 'poolid'],
  poolid: ['pool list', 'poolid'],
  realm: ['realm list', 'realm'],
  snapname: ['vm snapshot list', 'name'],
}

/** Where a command about containers means another list. */
const listsOfContainers: typeof lists = {
  vmid: ['ct list', 'vmid'],
  'target-vmid': ['ct list', 'vmid'],
  snapname: ['ct snapshot list', 'name'],
  // `rootfs`, `mp0`: no list has them.
  volume: ['', ''],
}

/** New ids are nobody's yet. */
const unknowable = new Set(['newid', 'name', 'comment'])

export function sourceOf(
  commands: readonly Command[],
  command: Command,
  parameter: string,
): { command: Command; column: string } | undefined {
  if (unknowable.has(parameter)) return undefined
  const isPositional = command.positional.includes(parameter)
  const own = command.words[0] === 'ct' ? listsOfContainers[parameter] : undefined
  const [list, column] = own ?? lists[parameter] ?? (isPositional ? [`${command.words[0] ?? ''} list`, parameter] : [])
  const found = commands.find((one) => list !== undefined && name(one) === list)
  return found && column !== undefined ? { command: found, column } : undefined
}
