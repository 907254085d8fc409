/** The API's descriptions of itself, served without login: they hold nothing about this node. */
import { describeTree } from '#rest/describe.ts'
import type { Endpoint } from '#rest/endpoint.ts'
import { openApi, type OpenApiFacts } from '#rest/openapi.ts'
import type { Document } from './edge.ts'

/** Paths the front asks the daemon for, although they are not below `/api2`. */
export const documentPaths: readonly string[] = ['/openapi.json', '/apidoc.json']

/** OpenAPI 3.1, and the tree PVE's API viewer reads. Written once, when first asked for. */
export function apiDocuments<Call>(
  endpoints: readonly Endpoint<Call>[],
  facts: OpenApiFacts,
): Readonly<Record<string, Document>> {
  return {
    '/openapi.json': jsonDocument(() => openApi(endpoints, facts)),
    '/apidoc.json': jsonDocument(() => describeTree(endpoints)),
  }
}

function jsonDocument(make: () => unknown): Document {
  let text: string | undefined
  return { contentType: 'application/json;charset=UTF-8', body: () => (text ??= JSON.stringify(make())) }
}
