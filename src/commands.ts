/** The command list, with and without a node to ask: help works before anything runs. */
import { productVersion } from '#base/product.ts'
import { allEndpoints } from '#api/root.ts'
import { type CommandList, commandsOf } from '#rest/command.ts'

export function offlineCommands(node: string): CommandList {
  return { node, version: productVersion, commands: commandsOf(allEndpoints) }
}
