/**
 * What front and daemon say to each other, beyond the client's own request.
 *
 * Headers are believed on `front.sock` alone, where only the front's uid may connect, and the front
 * removes every header of this prefix from what comes in from outside; but that of a trace, which gives no right, it sends
 * on.
 */
export const ownPrefix = 'x-hakobune-'
/** Address of the client. */
export const clientHeader = 'x-hakobune-client'
/** On the local socket, from root alone: the task that calls, which then has the rights of its starter and no others. */
export const taskHeader = 'x-hakobune-task'
/** The client reads what comes after the last byte of a reply: why more did not come. Without it the connection breaks off. */
export const endHeader = 'x-hakobune-end'
/** There, when it broke off. */
export const faultTrailer = 'x-hakobune-fault'
/** How long each part of the node had this request is to be told. */
export const traceHeader = 'x-hakobune-trace'
/** `ask`: may this upload begin? Otherwise the name of the spooled file; the body then holds the fields. */
export const uploadHeader = 'x-hakobune-upload'
export const askForUpload = 'ask'
/** Where the front finds the store's mark. */
export const markDescriptor = 3
/** What the front asks for by an upgrade: the guest a viewer's ticket is for, named as `ticket:port`. */
export const spiceProtocol = 'hakobune-spice'
export const spiceHeader = 'x-hakobune-spice'

/** What the front reads on its standard input, as one line of JSON. The input stays open as long as the daemon lives. */
export interface FrontConfig {
  readonly key: string
  readonly certificate: string
  readonly host: string
  readonly port: number
  readonly daemonSocket: string
  readonly uploadDir: string
  readonly staticDir?: string
  /** Name of the node, for the start page. */
  readonly node: string
  /** Descriptor 3 is the store's mark, open for reading. */
  readonly hasMark?: boolean
  /** Where viewers by SPICE connect. Absent: nowhere. */
  readonly spicePort?: number
}

/** Further lines it reads: new connections get this certificate, open ones go on. */
export type FrontRenewal = Pick<FrontConfig, 'key' | 'certificate'>

/** Where viewers by SPICE are served, or why they are not: that keeps nobody from the API. */
export type SpiceAt = { readonly port: number } | { readonly fault: string }

/** What the front says on its standard output, as one line of JSON each: ready or fault first, then one answer to each renewal. */
export type FrontMessage =
  | { readonly ready: { readonly port: number; readonly spice?: SpiceAt } }
  | { readonly renewed: true }
  | { readonly fault: { readonly kind: string; readonly message: string; readonly remedy?: string } }

export interface Target {
  readonly path: string
  readonly query: string
}

/** Splits a request's target; tolerates the absolute form that proxies send. */
export function splitTarget(url: string): Target {
  const local = url.startsWith('/') ? url : url.replace(/^https?:\/\/[^/?#]*/i, '')
  const end = local.indexOf('#')
  const whole = end < 0 ? local : local.slice(0, end)
  const question = whole.indexOf('?')
  return question < 0
    ? { path: whole || '/', query: '' }
    : { path: whole.slice(0, question) || '/', query: whole.slice(question + 1) }
}
