/** Every operation there is, by name: how a task's process finds what it was told to do. */
import { type AnyOperation, operationsByName } from '#tasks/registry.ts'
import { syncRealm, testRealmSync } from './access/sync-realm.ts'
import { pruneBackups } from './backup/prune.ts'
import { deactivateAccount, registerAccount, updateAccount } from './acme/account.ts'
import { orderCertificate, renewCertificate, revokeCertificate } from './acme/certificate.ts'
import { collectSpace } from './backup/collect.ts'
import { backupGuests } from './backup/run.ts'
import { takeOverBackups } from './backup/take-over.ts'
import { verifyBackups } from './backup/verify.ts'
import { createDirectory, removeDirectory } from './disks/directory.ts'
import { createVolumeGroup, removeVolumeGroup } from './disks/lvm.ts'
import { initDisk, wipeDisk } from './disks/whole-disk.ts'
import { cloneContainer } from './guest/clone-container.ts'
import { cloneGuest } from './guest/clone.ts'
import { updateCloudInit } from './guest/cloud-init.ts'
import { configureGuest } from './guest/configure.ts'
import { configureContainer } from './guest/configure-container.ts'
import { createContainer } from './guest/create-container.ts'
import { createGuest } from './guest/create.ts'
import { deleteContainerSnapshot, deleteSnapshot } from './guest/delete-snapshot.ts'
import { destroyContainer, destroyGuest } from './guest/destroy.ts'
import { moveDisk } from './guest/move-disk.ts'
import { moveVolume } from './guest/move-volume.ts'
import { reassignVolume } from './guest/reassign-volume.ts'
import { resetGuest, resumeGuest, stopGuest, suspendGuest } from './guest/power.ts'
import { resumeContainer, stopContainer, suspendContainer } from './guest/power.ts'
import { resizeDisk } from './guest/resize.ts'
import { resizeVolume } from './guest/resize-container.ts'
import { rollbackContainer, rollbackGuest } from './guest/rollback.ts'
import { rebootContainer, rebootGuest, shutdownContainer, shutdownGuest } from './guest/shutdown.ts'
import { snapshotContainer } from './guest/snapshot-container.ts'
import { snapshotGuest } from './guest/snapshot.ts'
import { restoreContainer } from './guest/restore-container.ts'
import { fillDisks } from './backup/fill-disks.ts'
import { restoreGuest } from './guest/restore.ts'
import { renewGuest } from './guest/renew.ts'
import { startContainer, startGuest } from './guest/start.ts'
import { templateContainer, templateGuest } from './guest/template.ts'
import { pushFile } from './guest/push-file.ts'
import { applyNetwork } from './node/apply-network.ts'
import { bulkShutdown, bulkStart, bulkSuspend, startAll, stopAll, suspendAll } from './node/all-guests.ts'
import { refreshPackages } from './node/refresh-packages.ts'
import { reloadService, restartService, startService, stopService } from './node/service.ts'
import { drillGuest } from './recovery/drill.ts'
import { runPlan } from './plans/run-plan.ts'
import { copyVolume } from './storage/copy.ts'
import { deleteVolume } from './storage/delete.ts'
import { downloadFile } from './storage/download.ts'
import { pullOciImage } from './storage/pull-image.ts'
import { uploadFile } from './storage/upload.ts'

export const allOperations = operationsByName([
  applyNetwork,
  backupGuests,
  bulkShutdown,
  bulkStart,
  bulkSuspend,
  cloneContainer,
  cloneGuest,
  collectSpace,
  configureContainer,
  configureGuest,
  copyVolume,
  createContainer,
  createDirectory,
  createGuest,
  createVolumeGroup,
  deactivateAccount,
  deleteContainerSnapshot,
  deleteSnapshot,
  deleteVolume,
  destroyContainer,
  destroyGuest,
  downloadFile,
  drillGuest,
  initDisk,
  moveDisk,
  moveVolume,
  pruneBackups,
  pullOciImage,
  pushFile,
  orderCertificate,
  reassignVolume,
  rebootContainer,
  rebootGuest,
  refreshPackages,
  registerAccount,
  reloadService,
  removeDirectory,
  removeVolumeGroup,
  renewCertificate,
  resetGuest,
  restartService,
  resizeDisk,
  resizeVolume,
  restoreContainer,
  restoreGuest,
  fillDisks,
  resumeContainer,
  resumeGuest,
  revokeCertificate,
  rollbackContainer,
  rollbackGuest,
  runPlan,
  shutdownContainer,
  shutdownGuest,
  snapshotContainer,
  snapshotGuest,
  startAll,
  startContainer,
  startGuest,
  renewGuest,
  startService,
  stopAll,
  stopContainer,
  stopGuest,
  stopService,
  suspendAll,
  suspendContainer,
  suspendGuest,
  syncRealm,
  takeOverBackups,
  templateContainer,
  templateGuest,
  testRealmSync,
  updateCloudInit,
  updateAccount,
  uploadFile,
  verifyBackups,
  wipeDisk,
] satisfies readonly AnyOperation[] as readonly AnyOperation[])
