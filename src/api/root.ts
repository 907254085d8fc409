/** Every endpoint of the node, in one array: all that is said of the API follows from it. */
import type { Endpoint } from '#rest/endpoint.ts'
import { accessEndpoints } from './access/access.ts'
import type { Call } from './call.ts'
import { clusterResourceEndpoints } from './cluster/resources.ts'
import { clusterTaskEndpoints } from './cluster/tasks.ts'
import { backupEndpoints } from './hako/backups.ts'
import { selfDescription } from './hako/commands.ts'
import { drillEndpoints, evidenceEndpoints } from './hako/drills.ts'
import { nodeEndpoints } from './nodes/node.ts'
import { qemuEndpoints } from './nodes/qemu/qemu.ts'
import { nodeStorageEndpoints } from './nodes/storage/storage.ts'
import { contentEndpoints } from './nodes/storage/content.ts'
import { uploadEndpoints } from './nodes/storage/upload.ts'
import { taskEndpoints } from './nodes/tasks.ts'
import { nodeVersionEndpoints } from './nodes/version.ts'
import { vzdumpEndpoints } from './nodes/vzdump.ts'
import { storageEndpoints } from './storage/storage.ts'
import { versionEndpoints } from './version.ts'

const endpoints: readonly Endpoint<Call>[] = [
  ...versionEndpoints,
  ...accessEndpoints,
  ...clusterResourceEndpoints,
  ...clusterTaskEndpoints,
  ...storageEndpoints,
  ...nodeEndpoints,
  ...nodeVersionEndpoints,
  ...nodeStorageEndpoints,
  ...contentEndpoints,
  ...uploadEndpoints,
  ...qemuEndpoints,
  ...taskEndpoints,
  ...vzdumpEndpoints,
  ...backupEndpoints,
  ...drillEndpoints,
  ...evidenceEndpoints,
]

export const allEndpoints: readonly Endpoint<Call>[] = [...endpoints, ...selfDescription(endpoints)]
