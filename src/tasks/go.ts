/** What passes between the daemon and the process of a task: before the task begins, and when the process could do another. */
import type { Json } from '#store/store.ts'

/** What a worker is told on its standard input, a line each. A recovering one finds operation and parameters on disk. */
export interface Go {
  readonly upid: string
  readonly operation?: string
  readonly params?: Json
  /** Whoever asked for it wants to know which parts of the node it passes. */
  readonly isFollowed?: boolean
}

/** On the worker's command line: finish what the process of that task left. */
export const recoverFlag = '--recover'
