/**
 * The peer of `small-get.ts`: the least an HTTPS server on Node can do. Reads key, certificate and the text
 * to answer with from one line of JSON, says its port, ends with its input.
 */
import { createServer } from 'node:https'
import { createInterface } from 'node:readline'

const lines = createInterface({ input: process.stdin })
lines.once('line', (line) => {
  const { key, certificate, body } = JSON.parse(line) as { key: string; certificate: string; body: string }
  const headers = {
    'Content-Type': 'application/json;charset=UTF-8',
    'Content-Length': String(Buffer.byteLength(body)),
  }
  // As patient with a silent connection as the front is.
  const options = { key, cert: certificate, ALPNProtocols: ['http/1.1'], keepAliveTimeout: 30_000 }
  const server = createServer(options, (_request, response) => {
    response.writeHead(200, headers).end(body)
  })
  server.listen(0, '127.0.0.1', () => {
    const address = server.address()
    process.stdout.write(`${typeof address === 'object' && address ? address.port : 0}\n`)
  })
})
lines.once('close', () => process.exit())
