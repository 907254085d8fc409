/** How a viewer by SPICE is told where to connect: the keys of virt-viewer. */
import { X509Certificate } from 'node:crypto'
import { isIPv6 } from 'node:net'
import { integer, object, type Static, string } from '#base/schema/schema.ts'

export const virtViewer = object({
  type: string({ description: 'Always `spice`.' }),
  title: string({ description: 'Title of the window.' }),
  host: string({ description: 'The ticket, in the place of a host: it leads to this guest alone.', isSecret: true }),
  proxy: string({ description: 'Where to connect: the node, as an HTTP proxy.' }),
  'tls-port': integer({ description: 'Number of the console.', minimum: 5900, maximum: 5999 }),
  password: string({ description: 'Password of the guest’s SPICE.', isSecret: true }),
  'host-subject': string({ description: 'Whom the certificate names.' }),
  ca: string({ description: 'Who is to be trusted: PEM, with `\\n` for line breaks.' }),
  'delete-this-file': integer({ description: 'The viewer deletes the file it was told by.' }),
  'secure-attention': string({ description: 'Keys that send Ctrl+Alt+Del.' }),
  'release-cursor': string({ description: 'Keys that release the pointer.' }),
  'toggle-fullscreen': string({ description: 'Keys that fill the screen.' }),
})

export interface ViewerFacts {
  readonly title: string
  readonly ticket: string
  readonly number: number
  readonly password: string
  /** Name or address of the node, as the viewer reaches it, and the port there. */
  readonly proxy: { readonly host: string; readonly port: number }
  /** PEM: the certificate the viewer meets. */
  readonly certificate: string
}

export function virtViewerFacts(facts: ViewerFacts): Static<typeof virtViewer> {
  const { host, port } = facts.proxy
  return {
    type: 'spice',
    title: facts.title,
    host: facts.ticket,
    proxy: `http://${isIPv6(host) ? `[${host}]` : host}:${port}`,
    'tls-port': facts.number,
    password: facts.password,
    // In the order it has there: viewers compare it so.
    'host-subject': new X509Certificate(facts.certificate).subject.split('\n').join(','),
    ca: facts.certificate.trim().replaceAll('\n', '\\n'),
    'delete-this-file': 1,
    'secure-attention': 'Ctrl+Alt+Ins',
    'release-cursor': 'Ctrl+Alt+R',
    'toggle-fullscreen': 'Shift+F11',
  }
}
