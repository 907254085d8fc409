/**
 * `node:http` for whoever calls into it: everywhere else it is imported for its types alone.
 *
 * An ordinary import of it reads each of its exports, and reading `WebSocket` loads all of undici, which
 * nobody here uses: 30 ms of CPU in every process, which is half of what a short command takes, and 15 MiB of
 * memory in those that stay. Asking for the module by name reads nothing.
 */
export const nodeHttp = process.getBuiltinModule('node:http')
