/** `hako storage remove`: before it asks for the name again it says who uses the storage, and afterwards what is left. */
import { Fault, isFault } from '#base/fault.ts'
import type { Command } from '#rest/command.ts'
import { parseFor } from './arguments.ts'
import { filledPath } from './path.ts'
import { type RunFacts, runCommand } from './run-command.ts'
import { say } from './text.ts'

interface Volume {
  readonly content: string
  readonly vmid?: number
}

interface Job {
  readonly id: string
  readonly storage?: string
}

/** As in Proxmox VE a node always has it. */
const localName = 'local'

export async function removeStorage(command: Command, args: readonly string[], facts: RunFacts): Promise<number> {
  const { positionals, global } = parseFor(command, args)
  const [storage = ''] = positionals
  const { language, show } = facts.terminal
  if (global.help || storage === '' || global.confirm === storage) {
    const code = await runCommand(command, args, facts)
    if (storage === localName && !global.help && !global.quiet && global.output === 'table') {
      show(say(language, 'localStays'))
      show(`${say(language, 'nextStep')}: ${say(language, 'localStaysRemedy')}`)
    }
    return code
  }
  try {
    return await runCommand(command, args, facts)
  } catch (error) {
    if (!isFault(error, 'invalid') || error.fields !== undefined) throw error
    const uses = storage === localName ? [] : await usesOf(storage, facts)
    const more = storage === localName ? say(language, 'localStays') : say(language, 'inUse', uses.join('; '))
    if (storage !== localName && uses.length === 0) throw error
    throw new Fault('invalid', `${error.message} ${more}`, {
      ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
      cause: error,
    })
  }
}

async function usesOf(storage: string, { connection, list }: RunFacts): Promise<string[]> {
  const path = filledPath('/nodes/{node}/storage/{storage}/content', { node: list.node, storage })
  const rows = async <T>(from: string) =>
    // What cannot be looked at is not spoken of.
    connection.call('GET', from).then(
      ({ data }) => data as T[],
      (error: unknown) => {
        if (isFault(error)) return []
        throw error
      },
    )
  const [volumes, jobs] = await Promise.all([rows<Volume>(path), rows<Job>('/cluster/backup')])
  const owners = [...new Set(volumes.filter(({ content }) => content === 'images').map(({ vmid }) => vmid))]
  const others = Object.groupBy(
    volumes.filter(({ content }) => content !== 'images'),
    ({ content }) => content,
  )
  return [
    ...(owners.length > 0 ? [`disks of VM ${owners.toSorted((a = 0, b = 0) => a - b).join(', ')}`] : []),
    ...Object.entries(others).map(([content, some = []]) => `${some.length} ${content}`),
    ...jobs.filter((job) => job.storage === storage).map(({ id }) => `job ${id}`),
  ]
}
