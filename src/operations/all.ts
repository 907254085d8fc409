/** Every operation there is, by name: how a task's process finds what it was told to do. */
import { type AnyOperation, operationsByName } from '#tasks/registry.ts'
import { backupGuests } from './backup/run.ts'
import { verifyBackups } from './backup/verify.ts'
import { configureGuest } from './guest/configure.ts'
import { createGuest } from './guest/create.ts'
import { destroyGuest } from './guest/destroy.ts'
import { resetGuest, resumeGuest, stopGuest, suspendGuest } from './guest/power.ts'
import { rebootGuest, shutdownGuest } from './guest/shutdown.ts'
import { restoreGuest } from './guest/restore.ts'
import { startGuest } from './guest/start.ts'
import { drillGuest } from './recovery/drill.ts'
import { deleteVolume } from './storage/delete.ts'
import { uploadFile } from './storage/upload.ts'

export const allOperations = operationsByName([
  backupGuests,
  configureGuest,
  createGuest,
  deleteVolume,
  destroyGuest,
  drillGuest,
  rebootGuest,
  resetGuest,
  restoreGuest,
  resumeGuest,
  shutdownGuest,
  startGuest,
  stopGuest,
  suspendGuest,
  uploadFile,
  verifyBackups,
] satisfies readonly AnyOperation[] as readonly AnyOperation[])
