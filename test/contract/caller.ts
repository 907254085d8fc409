/** Makes the calls of the contract tests over a real transport, in the form a client would send them. */
import { queryOf, type Transport } from '#rest/client.ts'
import type { Caller, ContractCall } from './samples.ts'

/** @param headers proof of identity, if any */
export function callerOver(send: Transport, headers: Readonly<Record<string, string>> = {}): Caller {
  return async (call) => {
    const hasBody = call.method === 'POST' || call.method === 'PUT'
    const query = hasBody ? '' : queryOf(call.params)
    const { type, body } = call.isUpload ? multipart(call) : json(call)
    const reply = await send({
      method: call.method,
      target: `/api2/json${call.path}${query === '' ? '' : `?${query}`}`,
      headers: {
        ...headers,
        ...(hasBody ? { 'Content-Type': type, 'Content-Length': String(Buffer.byteLength(body)) } : {}),
      },
      ...(hasBody ? { body } : {}),
    })
    return { status: reply.status, body: parsed(reply.body) }
  }
}

function json({ params }: ContractCall): { type: string; body: string } {
  return { type: 'application/json', body: JSON.stringify(params) }
}

function multipart({ params: { filename, ...fields } }: ContractCall): { type: string; body: string } {
  const parts = Object.entries(fields).map(([name, value]) => `name="${name}"\r\n\r\n${String(value as string)}`)
  if (filename !== undefined) parts.push(`name="filename"; filename="${String(filename as string)}"\r\n\r\ncontent`)
  const body = parts.map((part) => `--B\r\nContent-Disposition: form-data; ${part}\r\n`).join('')
  return { type: 'multipart/form-data; boundary=B', body: `${body}--B--\r\n` }
}

function parsed(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? { ...value } : {}
  } catch {
    return {} // A download, or something the status already condemns.
  }
}
