/** Every endpoint of the node, in one array: all that is said of the API follows from it. */
import type { Endpoint } from '#rest/endpoint.ts'
import { accessEndpoints } from './access/access.ts'
import type { Call } from './call.ts'
import { acmeEndpoints } from './cluster/acme.ts'
import { acmePluginEndpoints } from './cluster/acme-plugins.ts'
import { backupJobEndpoints } from './cluster/backup.ts'
import { bulkActionEndpoints } from './cluster/bulk-action.ts'
import { jobEndpoints } from './cluster/jobs.ts'
import { clusterLogEndpoints } from './cluster/log.ts'
import { metricEndpoints } from './cluster/metrics.ts'
import { mappingEndpoints } from './cluster/mapping.ts'
import { clusterOptionEndpoints } from './cluster/options.ts'
import { cpuModelEndpoints } from './cluster/qemu.ts'
import { clusterResourceEndpoints } from './cluster/resources.ts'
import { clusterTaskEndpoints } from './cluster/tasks.ts'
import { architectureEndpoints } from './hako/architecture.ts'
import { wayEndpoints } from './hako/ways.ts'
import { backupFileEndpoints } from './hako/backup-files.ts'
import { backupEndpoints } from './hako/backups.ts'
import { selfDescription } from './hako/commands.ts'
import { execEndpoints } from './hako/containers.ts'
import { datastoreJobEndpoints } from './hako/datastore-jobs.ts'
import { datastoreEndpoints } from './hako/datastores.ts'
import { drillEndpoints, evidenceEndpoints } from './hako/drills.ts'
import { planJobEndpoints } from './hako/plan-jobs.ts'
import { planEndpoints } from './hako/plans.ts'
import { networkChangeEndpoints } from './hako/network.ts'
import { backupOptionsEndpoints } from './hako/backup-options.ts'
import { recoveryKeyEndpoints } from './hako/recovery-key.ts'
import { renewalEndpoints } from './hako/renewal.ts'
import { nodeConfigEndpoints } from './nodes/config.ts'
import { applianceEndpoints } from './nodes/appliances.ts'
import { ociEndpoints } from './nodes/oci.ts'
import { aptEndpoints } from './nodes/apt.ts'
import { bulkEndpoints } from './nodes/bulk.ts'
import { certificateEndpoints } from './nodes/certificates.ts'
import { capabilityEndpoints } from './nodes/capabilities.ts'
import { diskGroupEndpoints } from './nodes/disk-groups.ts'
import { diskEndpoints } from './nodes/disks.ts'
import { executeEndpoints } from './nodes/execute.ts'
import { nodeFactEndpoints } from './nodes/facts.ts'
import { hardwareEndpoints } from './nodes/hardware.ts'
import { journalEndpoints } from './nodes/journal.ts'
import { containerEndpoints } from './nodes/lxc/lxc.ts'
import { machineEndpoints } from './nodes/machine.ts'
import { networkEndpoints } from './nodes/network.ts'
import { rrdEndpoints } from './nodes/rrd.ts'
import { shellEndpoints } from './nodes/shell.ts'
import { scanEndpoints } from './nodes/scan.ts'
import { serviceEndpoints } from './nodes/services.ts'
import { subscriptionEndpoints } from './nodes/subscription.ts'
import { nodeEndpoints } from './nodes/node.ts'
import { qemuEndpoints } from './nodes/qemu/qemu.ts'
import { nodeStorageEndpoints } from './nodes/storage/storage.ts'
import { contentEndpoints } from './nodes/storage/content.ts'
import { downloadEndpoints } from './nodes/storage/download.ts'
import { importEndpoints } from './nodes/storage/import.ts'
import { fileRestoreEndpoints } from './nodes/storage/file-restore.ts'
import { pruneEndpoints } from './nodes/storage/prune.ts'
import { uploadEndpoints } from './nodes/storage/upload.ts'
import { taskEndpoints } from './nodes/tasks.ts'
import { nodeVersionEndpoints } from './nodes/version.ts'
import { vzdumpEndpoints } from './nodes/vzdump.ts'
import { poolEndpoints } from './pools/pools.ts'
import { storageEndpoints } from './storage/storage.ts'
import { versionEndpoints } from './version.ts'

const endpoints = [
  ...versionEndpoints,
  ...accessEndpoints,
  ...clusterResourceEndpoints,
  ...clusterOptionEndpoints,
  ...acmeEndpoints,
  ...acmePluginEndpoints,
  ...backupJobEndpoints,
  ...bulkActionEndpoints,
  ...jobEndpoints,
  ...clusterLogEndpoints,
  ...metricEndpoints,
  ...mappingEndpoints,
  ...cpuModelEndpoints,
  ...clusterTaskEndpoints,
  ...storageEndpoints,
  ...poolEndpoints,
  ...nodeEndpoints,
  ...nodeConfigEndpoints,
  ...machineEndpoints,
  ...executeEndpoints,
  ...nodeFactEndpoints,
  ...applianceEndpoints,
  ...ociEndpoints,
  ...aptEndpoints,
  ...bulkEndpoints,
  ...capabilityEndpoints,
  ...certificateEndpoints,
  ...diskEndpoints,
  ...diskGroupEndpoints,
  ...hardwareEndpoints,
  ...journalEndpoints,
  ...networkEndpoints,
  ...rrdEndpoints,
  ...scanEndpoints,
  ...serviceEndpoints,
  ...shellEndpoints,
  ...subscriptionEndpoints,
  ...nodeVersionEndpoints,
  ...nodeStorageEndpoints,
  ...contentEndpoints,
  ...downloadEndpoints,
  ...importEndpoints,
  ...fileRestoreEndpoints,
  ...pruneEndpoints,
  ...uploadEndpoints,
  ...qemuEndpoints,
  ...containerEndpoints,
  ...taskEndpoints,
  ...vzdumpEndpoints,
  ...backupEndpoints,
  ...architectureEndpoints,
  ...wayEndpoints,
  ...backupFileEndpoints,
  ...drillEndpoints,
  ...evidenceEndpoints,
  ...planEndpoints,
  ...planJobEndpoints,
  ...networkChangeEndpoints,
  ...datastoreEndpoints,
  ...datastoreJobEndpoints,
  ...backupOptionsEndpoints,
  ...recoveryKeyEndpoints,
  ...execEndpoints,
  ...renewalEndpoints,
]

/** For the typed client: `apiClient<NodeEndpoint>(…)` knows every path, its parameters and its reply. */
export type NodeEndpoint = (typeof endpoints)[number]

export const allEndpoints: readonly Endpoint<Call>[] = [...endpoints, ...selfDescription(endpoints)]
