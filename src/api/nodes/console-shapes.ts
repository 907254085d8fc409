/** What all consoles have in common on the wire. */
import { integer, object, optional, string } from '#base/schema/schema.ts'
import { upid } from '#base/schema/standard.ts'

const opened = {
  user: string({ description: 'Whom the ticket is for: user, or token when one acts.' }),
  ticket: string({ description: 'Opens this console, once, within ten seconds.', isSecret: true }),
  port: integer({ description: 'Number of the console.', minimum: 5900, maximum: 5999 }),
  upid,
}

export const openedTerminal = object(opened)

export const openedScreen = object({
  ...opened,
  cert: string({ description: 'Certificate the node is reached with.' }),
  password: optional(string({ description: 'Password of the screen.', isSecret: true })),
})

export const websocketParams = {
  port: integer({ description: 'Number of the console, as it was returned.', minimum: 5900, maximum: 5999 }),
  vncticket: string({ description: 'Ticket, as it was returned.', maxLength: 512, isSecret: true }),
}
