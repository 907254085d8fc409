/** What all consoles have in common on the wire. */
import { boolean, integer, object, optional, string } from '#base/schema/schema.ts'
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

/** Of a terminal that is drawn. */
export const screenParams = {
  websocket: optional(boolean({ description: 'Accepted; the screen is reached by WebSocket in any case.' })),
  width: optional(integer({ description: 'Width in pixels.', minimum: 16, maximum: 4096 })),
  height: optional(integer({ description: 'Height in pixels.', minimum: 16, maximum: 2160 })),
}

/** Of what is looked at by SPICE. */
export const spiceParams = {
  proxy: optional(
    string({
      description: 'Name or address the viewer reaches the node by; else the one of this call.',
      format: 'address',
      maxLength: 253,
    }),
  ),
}

export const websocketParams = {
  port: integer({ description: 'Number of the console, as it was returned.', minimum: 5900, maximum: 5999 }),
  vncticket: string({ description: 'Ticket, as it was returned.', maxLength: 512, isSecret: true }),
}
