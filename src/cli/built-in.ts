/** Commands the CLI itself makes of calls every node has: in help and completion they stand beside the node's own. */
import type { Command, CommandOption } from '#rest/command.ts'
import type { Language } from './text.ts'

const text = (description: string): CommandOption => ({
  type: 'string',
  description,
  required: true,
  multiple: false,
  isSecret: false,
})

export const apiUsage = 'hako api GET /nodes; hako api POST /nodes/lab/qemu vmid=100 memory=256'

export const builtIn = (
  words: readonly string[],
  rest: Partial<Command> & Pick<Command, 'description' | 'examples'>,
): Command => ({
  words,
  method: 'GET',
  path: '',
  positional: [],
  options: {},
  isTask: false,
  isUpload: false,
  ...rest,
})

export function builtInCommands(language: Language): Command[] {
  const inWords = (en: string, ja: string) => (language === 'ja' ? ja : en)
  return [
    builtIn(['api'], {
      description: inWords('Call any method of the API.', 'API の任意のメソッドを呼ぶ。'),
      positional: ['method', 'path', 'name=value …'],
      examples: ['api GET /nodes', 'api POST /nodes/lab/qemu vmid=100 memory=256'],
    }),
    builtIn(['task', 'wait'], {
      description: inWords(
        'Follow a task to its end: its log, how far it is, and its exit code.',
        'タスクの終わりまで追う: ログ、進み具合、終了コード。',
      ),
      positional: ['upid'],
      options: { upid: text('Task.') },
      examples: ['task wait "$(hako backup now 100 --no-wait)"', 'task log UPID --follow'],
    }),
  ]
}

/** `task log UPID --follow` (`-f`) is `task wait UPID`, by the name people look for. */
const followOption: CommandOption = {
  type: 'boolean',
  description: 'Go on until the task ends (-f); its exit code is ours.',
  required: false,
  multiple: false,
  isSecret: false,
}

const optional = (description: string, rest: Partial<CommandOption> = {}): CommandOption => ({
  ...text(description),
  required: false,
  ...rest,
})

/** The node tells what it is made of; the picture of it is drawn here. */
export const diagramOptions: Readonly<Record<string, CommandOption>> = {
  to: optional('File the picture is written to; standard output when absent.'),
  theme: optional('Colours: those the reader prefers, light or dark ones.', { enum: ['auto', 'light', 'dark'] }),
  follow: optional('Go on, and draw again whenever something changes, until Ctrl-C.', { type: 'boolean' }),
  backup: optional('Show the way this backup took through the node, with its times.'),
  request: optional(
    'Make this request, such as `GET /nodes`, and show its way through the node, with the times measured there.',
  ),
}

/** A command of the node, with the options the command line adds to it. */
export function withOwnOptions(command: Command): Command {
  if (command.words.join(' ') === 'diagram') return { ...command, options: { ...command.options, ...diagramOptions } }
  if (command.words.join(' ') !== 'task log') return command
  return { ...command, options: { ...command.options, follow: followOption } }
}
