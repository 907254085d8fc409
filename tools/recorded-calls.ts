import { join } from 'node:path'

/** Where a test leaves what a client called, as a JSON array of `GET /path/{param}` for each client. */
export const recordedCalls = join(import.meta.dirname, '../node_modules/.cache/hakobune/calls')
