/**
 * `node:http` for whoever calls into it; elsewhere it is imported for its types alone.
 *
 * An ordinary import of it reads each of its exports, and reading `WebSocket` loads all of undici, which
 * nobody here uses: 30 ms of CPU at the start of the daemon and of the front, and 15 MiB of memory in each as
 * long as they live. Asking for the module by name reads nothing.
 */
export const nodeHttp = process.getBuiltinModule('node:http')
