/** `/hako/architecture`: what a node is made of, for whoever draws it. */
import { integer, optional } from '#base/schema/schema.ts'
import { nodeName } from '#base/schema/standard.ts'
import { check } from '#rest/endpoint.ts'
import { gatherParts } from '#views/architecture/gather.ts'
import { architecture, levels } from '#views/architecture/graph.ts'
import { graphAt } from '#views/architecture/level.ts'
import { endpoint } from '../call.ts'

export const architectureEndpoints = [
  endpoint({
    method: 'GET',
    path: '/hako/architecture/{node}',
    description:
      'What the node is made of as a graph: its parts in four layers, how each is, and what it has to do with the others.',
    proxyTo: 'node',
    params: {
      node: nodeName,
      level: optional(
        integer({
          description:
            'How much is told: 1 for kinds of parts, 2 for each part, 3 for the disks and cards of guests, too.',
          minimum: 1,
          maximum: levels.length,
          default: 1,
        }),
      ),
    },
    permission: check('Sys.Audit', '/nodes/{node}'),
    isOwn: true,
    returns: architecture,
    cli: {
      command: ['diagram'],
      examples: [
        'diagram > node.svg',
        'diagram --level 2 --to node.svg --follow',
        'diagram --theme dark --lang ja --to node.svg',
        'diagram --backup local:backup/vm/100/2026-01-01T00:00:00Z --to backup.svg',
        "diagram --request 'GET /nodes/lab/qemu/100/status/current' --to request.svg",
        'diagram --level 3 -o json',
      ],
    },
    async handle({ node, level = 1 }, { services, may }) {
      const known = levels.find((one) => one === level) ?? 1
      const { parts, edges } = graphAt(known, await gatherParts(services, may))
      return { node, level: known, parts: [...parts], edges: [...edges] }
    },
  }),
]
