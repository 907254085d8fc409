/** What an S3 server, the way to it, or the client library says, in words of ours: what it means, and what to do. */
import { Fault, messageOf, missing } from '#base/fault.ts'
import { clockFault } from '../server-clock.ts'

export interface S3Where {
  readonly bucket: string
  /** Endpoint, for people. */
  readonly server: string
}

const gone = new Set(['NoSuchKey', 'NotFound', 'NoSuchVersion'])
/** What is wrong with who asks, whatever they ask for. */
const unknown: Readonly<Record<string, string>> = {
  InvalidAccessKeyId: 'it does not know the access key',
  SignatureDoesNotMatch: 'the secret key is not that of the access key',
  ExpiredToken: 'the session of the credentials is over',
  InvalidToken: 'the session token of the credentials is none of its',
}
/** It is asked too often. */
const throttling = new Set(['SlowDown', 'Throttling', 'ThrottlingException', 'TooManyRequests', 'RequestLimitExceeded'])
/** What may be other in a moment. */
const passing = new Set([
  'InternalError',
  'ServiceUnavailable',
  'RequestTimeout',
  'XAmzContentSHA256Mismatch',
  'BadDigest',
  'IncompleteBody',
  'OperationAborted',
])

const nobodyThere: Readonly<Record<string, { readonly remedy: string }>> = {
  ECONNREFUSED: { remedy: 'Nothing listens there: see that the server runs, and that --endpoint names its port.' },
  ECONNRESET: { remedy: 'See that --endpoint names the port and the protocol the server has.' },
  ENOTFOUND: { remedy: 'Nobody knows a server of that name: check --endpoint, and the name servers of this machine.' },
  EHOSTUNREACH: { remedy: 'No way leads there: check the network of this machine.' },
  ENETUNREACH: { remedy: 'No way leads there: check the network of this machine.' },
}

/** Something else answers. */
export function noServerFault(server: string, cause?: unknown): Fault {
  return new Fault('invalid', `what answers at '${server}' is no S3 server`, { cause, remedy: 'Check --endpoint.' })
}

interface Said {
  readonly name: string
  readonly status: number
  readonly code: string
  readonly text: string
}

/** @param what the object it was about */
export function asS3Fault(cause: unknown, { bucket, server }: S3Where, what: string): unknown {
  if (cause instanceof Fault) return cause
  const { name, status, code, text } = said(cause)
  if (gone.has(name)) return missing('object', what)
  if (name === 'NoSuchBucket') return missing('bucket', bucket)
  if (name === 'InvalidRange' || status === 416)
    return new Fault('damaged', `'${what}' ends before what was to be read`)
  if (name === 'RequestTimeTooSkewed') return clockFault(server, cause)
  if (name === 'CredentialsProviderError') {
    return new Fault('denied', `there are no credentials for '${server}'`, {
      cause,
      remedy: 'Name a file with --credentials-file, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.',
    })
  }
  if (unknown[name] !== undefined) {
    return new Fault('denied', `'${server}' refuses access: ${unknown[name]} (${name})`, {
      cause,
      remedy: 'Check the credentials, and that they are those of this server.',
    })
  }
  if (name === 'AccessDenied' || name === 'AccountProblem' || status === 401 || status === 403) {
    const about = { cause, remedy: 'Check the credentials, and what they may do in this bucket.' }
    // An object has a name; all else is said in words.
    if (what.includes(' ')) {
      return new Fault('denied', `'${server}' refuses access to ${what} of bucket '${bucket}': ${name}`, about)
    }
    return new Fault('denied', `'${server}' refuses access to '${what}' in bucket '${bucket}': ${name}`, about)
  }
  if (name === 'QuotaExceeded' || status === 507) return new Fault('exhausted', `bucket '${bucket}' is full`, { cause })
  if (name === 'EntityTooLarge') return new Fault('too-large', `'${what}' is too large for '${server}'`, { cause })
  if (status === 301 || status === 307 || name === 'AuthorizationHeaderMalformed') {
    return new Fault('invalid', `bucket '${bucket}' belongs to another region`, {
      cause,
      remedy: 'Name it with --region.',
    })
  }
  if (throttling.has(name) || status === 429) {
    return new Fault('unavailable', `'${server}' asks to be asked less often: it answers ${status} (${name})`, {
      cause,
      remedy: 'Try again later, or more slowly: --bwlimit.',
    })
  }
  if (passing.has(name) || status >= 500) {
    return new Fault('unavailable', `'${server}' answers ${status} (${name})`, { cause })
  }
  return ofTheWay(cause, server, { code, name, text, status })
}

/** Nobody answered, or not to the end. */
function ofTheWay(cause: unknown, server: string, { code, name, text, status }: Said): unknown {
  const isCutOff =
    /^(?:ECONN|EPIPE|ENOTFOUND|EAI_|EHOST|ENET|HPE_)/.test(code) || /aborted|hang up|premature/i.test(text)
  // The library calls some of what is cut off a timeout.
  if (!isCutOff && (name === 'TimeoutError' || name === 'AbortError' || code === 'ETIMEDOUT')) {
    return new Fault('timeout', `'${server}' did not answer in time`, { cause })
  }
  if (/CERT|SELF_SIGNED|UNABLE_TO_|ERR_TLS|ERR_SSL/.test(code)) {
    return new Fault('denied', `the certificate of '${server}' is not trusted: ${code}`, {
      cause,
      remedy: 'Name the authority that signed it with --ca-file.',
    })
  }
  if (code === 'EPROTO') {
    return new Fault('invalid', `what answers at '${server}' speaks no TLS`, {
      cause,
      remedy: 'Check --endpoint: its port, and whether it is http:// there.',
    })
  }
  // Half a document is no document.
  const isUnreadable = status === 200 || /pars|unexpected|xml/i.test(text)
  if (isCutOff || isUnreadable) {
    return new Fault('unavailable', `could not reach '${server}': ${code || text}`, { cause, ...nobodyThere[code] })
  }
  // No answer, and nothing of the way: a mistake of ours.
  return status === 0 ? cause : new Fault('failed', `'${server}' answers ${status} (${name})`, { cause })
}

function said(cause: unknown): Said {
  const error = Object(cause) as {
    readonly name?: string
    readonly code?: string
    readonly Code?: string
    readonly $metadata?: { readonly httpStatusCode?: number }
  }
  const { name = '', code = '', Code, $metadata } = error
  return { name: Code ?? name, code: String(code), status: $metadata?.httpStatusCode ?? 0, text: messageOf(cause) }
}
