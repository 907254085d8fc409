/** Completion for bash and zsh: the shell asks `hako __complete WORDS…`, the answer is one candidate per line. */
import { Fault } from '#base/fault.ts'
import type { Command } from '#rest/command.ts'
import { globalOptions } from './arguments.ts'
import { findCommand } from './command-tree.ts'

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

/**
 * What may stand where the cursor is.
 * @param typed the words so far, the last one unfinished (maybe empty)
 * @param idsOf asks the node for the objects a positional parameter may name
 */
export async function candidates(
  commands: readonly Command[],
  localNames: readonly (readonly string[])[],
  typed: readonly string[],
  idsOf: (command: Command, positional: string) => Promise<readonly string[]>,
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
  const positional = command.positional[rest.filter((word) => !word.startsWith('-')).length]
  return positional === undefined ? [] : starting(await idsOf(command, positional))
}

/** Which list knows the objects a positional names, and in which column. */
const lists: Readonly<Record<string, readonly [noun: string, column: string]>> = {
  vmid: ['vm', 'vmid'],
  archive: ['backup', 'volid'],
  volume: ['backup', 'volid'],
  drill: ['drill', 'id'],
  upid: ['task', 'upid'],
  storage: ['storage', 'storage'],
  userid: ['user', 'userid'],
  roleid: ['role', 'roleid'],
  groupid: ['group', 'groupid'],
}

export function sourceOf(
  commands: readonly Command[],
  command: Command,
  positional: string,
): { command: Command; column: string } | undefined {
  const [noun, column] = lists[positional] ?? [command.words[0], positional]
  const found = commands.find(({ words }) => words.length === 2 && words[0] === noun && words[1] === 'list')
  return found && { command: found, column }
}
