/** Every bound in one place: what comes from outside is never larger, longer or more than this. */
import { GiB, KiB, MiB } from './bytes.ts'

export const limits = {
  http: {
    requestBodyBytes: 512 * KiB,
    headerBytes: 32 * KiB,
    uploadBytes: 256 * GiB,
    requestTimeoutMs: 60_000,
    headersTimeoutMs: 15_000,
    openConnections: 1_000,
  },
  exec: { outputBytes: 16 * MiB, timeoutMs: 60_000 },
  tasks: {
    logLineBytes: 8 * KiB,
    logBytes: 64 * MiB,
    kept: 1_000,
    startTimeoutMs: 10_000,
    runningAtOnce: 16,
  },
  store: { keyBytes: 512, valueBytes: 1 * MiB, listEntries: 100_000, watchQueue: 10_000 },
  qmp: { replyBytes: 16 * MiB, timeoutMs: 10_000 },
  agent: { replyBytes: 48 * MiB, timeoutMs: 10_000, fileBytes: 16 * MiB },
  backup: { queuedBlocks: 32, chunkBytes: 128 * KiB, manifestBytes: 16 * MiB, indexBytes: 1 * GiB },
  plans: {
    documentBytes: 256 * KiB,
    blockBytes: 16 * KiB,
    /** Of lists and quotes in one another. */
    depth: 32,
    items: 3_000,
    lines: 6_000,
    steps: 300,
    variables: 100,
    valueBytes: 4 * KiB,
    keptRuns: 100,
    callTimeoutMs: 200_000,
    stepSeconds: 4 * 3600,
  },
  evidence: { fileBytes: 64 * MiB, files: 256 },
} as const
