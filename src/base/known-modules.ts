/**
 * Tells Node where the project's own modules lie: loaded before anything else (`--require`), for its own sake.
 *
 * Their names say it, `#base/log.ts` and `./log.ts`. Node looks at the disk and up the tree for each of thousands of imports
 * to be sure, which takes a third of what a process of ours takes to start (docs/decisions/modules-on-demand.md).
 */
import { registerHooks } from 'node:module'

const sources = new URL('../', import.meta.url).href

registerHooks({
  resolve(name, context, next) {
    const { parentURL: from = '' } = context
    if (name.startsWith('node:')) return { url: name, format: 'builtin', shortCircuit: true }
    if (!name.endsWith('.ts') || !from.startsWith(sources)) return next(name, context)
    const url = name.startsWith('#') ? sources + name.slice(1) : new URL(name, from).href
    return { url, format: 'module-typescript', shortCircuit: true }
  },
})
