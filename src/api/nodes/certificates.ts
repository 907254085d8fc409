/** `/nodes/{node}/certificates`: what the API is served with. */
import { array, boolean, nothing, object, optional, string } from '#base/schema/schema.ts'
import { nodeName, upid } from '#base/schema/standard.ts'
import { certificateFiles } from '#cluster/certificates.ts'
import { orderCertificate, renewCertificate, revokeCertificate } from '#operations/acme/certificate.ts'
import { anyone, check } from '#rest/endpoint.ts'
import { certificateItem, certificateList, describe } from '#views/certificates.ts'
import { endpoint } from '../call.ts'

const at = { node: nodeName }
const mayModify = check('Sys.Modify', '/nodes/{node}')
const forced = (description: string) => optional(boolean({ description, default: false }))
const restart = optional(
  boolean({
    description: 'Changes nothing: new connections get the certificate at once either way, and no open one is cut.',
    default: false,
  }),
)

export const certificateEndpoints = [
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/certificates',
    description: 'What there is to ask about certificates.',
    params: at,
    permission: anyone,
    returns: array(object({ name: string({ description: 'Name.' }) })),
    handle: () => ['acme', 'custom', 'info'].map((name) => ({ name })),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/certificates/info',
    description: 'Certificates of a node. With a custom one that one serves the API, else its own.',
    proxyTo: 'node',
    params: at,
    permission: anyone,
    returns: array(certificateItem),
    cli: {
      command: ['node', 'certificate', 'info'],
      positional: ['node'],
      columns: ['filename', 'subject', 'issuer', 'notafter', 'fingerprint'],
      id: 'fingerprint',
    },
    handle: (_, { services }) => certificateList(services.certificates),
  }),
  endpoint({
    method: 'GET',
    path: '/nodes/{node}/certificates/acme',
    description: 'What there is to do about certificates an ACME server signs.',
    params: at,
    permission: anyone,
    returns: array(object({ name: string({ description: 'Name.' }) })),
    handle: () => [{ name: 'certificate' }],
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/certificates/acme/certificate',
    description: 'Order a certificate for the domains of the node and serve the API with it.',
    proxyTo: 'node',
    params: { ...at, force: forced('Replace a custom certificate that is there.') },
    permission: mayModify,
    returns: upid,
    cli: { command: ['node', 'certificate', 'order'] },
    handle: ({ force }, call) => call.start(orderCertificate, { force }),
  }),
  endpoint({
    method: 'PUT',
    path: '/nodes/{node}/certificates/acme/certificate',
    description: 'Renew the certificate when it ends within 30 days. The node does this by itself.',
    proxyTo: 'node',
    params: { ...at, force: forced('Also when it is good for longer.') },
    permission: mayModify,
    returns: upid,
    cli: { command: ['node', 'certificate', 'renew'] },
    handle: ({ force }, call) => call.start(renewCertificate, { force }),
  }),
  endpoint({
    method: 'DELETE',
    path: '/nodes/{node}/certificates/acme/certificate',
    description: 'Revoke the certificate that was ordered. The API is served with the own one again.',
    proxyTo: 'node',
    params: at,
    permission: mayModify,
    returns: upid,
    cli: { command: ['node', 'certificate', 'revoke'], positional: ['node'], destroys: 'node' },
    handle: (_, call) => call.start(revokeCertificate, {}),
  }),
  endpoint({
    method: 'POST',
    path: '/nodes/{node}/certificates/custom',
    description: 'Serve the API with a certificate of your own. It is checked before anything changes.',
    proxyTo: 'node',
    params: {
      ...at,
      certificates: string({
        description: 'The certificate and those that vouch for it, in order, as PEM.',
        format: 'pem-certificate-chain',
        maxLength: 131_072,
      }),
      key: optional(
        string({
          description: 'Its key, as PEM. Without it the key of the certificate that is replaced is used again.',
          format: 'pem-string',
          maxLength: 32_768,
          isSecret: true,
        }),
      ),
      force: forced('Replace a custom certificate that is there.'),
      restart,
    },
    permission: mayModify,
    returns: certificateItem,
    cli: {
      command: ['node', 'certificate', 'set'],
      positional: ['node'],
      files: ['certificates', 'key'],
      examples: ['node certificate set lab --certificates chain.pem --key key.pem'],
    },
    async handle({ certificates, key, force }, { services }) {
      const { certificate } = await services.certificates.bring({ certificates, key, force })
      return describe(certificateFiles.custom, certificate)
    },
  }),
  endpoint({
    method: 'DELETE',
    path: '/nodes/{node}/certificates/custom',
    description: 'Remove the custom certificate with its key. The API is served with the own one again.',
    proxyTo: 'node',
    params: { ...at, restart },
    permission: mayModify,
    returns: nothing,
    cli: {
      command: ['node', 'certificate', 'remove'],
      positional: ['node'],
      destroys: 'node',
      examples: ['node certificate remove lab --confirm lab'],
    },
    handle: (_, { services }) => services.certificates.remove().then(() => null),
  }),
]
