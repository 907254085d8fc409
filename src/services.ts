/**
 * The services of one node. The same set is there in the daemon and in every task's process; what only
 * the daemon has (who may call, which tasks run) is added by `main.ts`.
 *
 * A service is made, and what is its own is loaded, when it is first asked for: a task needs few of them, and loading
 * all takes longer than most tasks do. What nearly every task needs is imported.
 */
import { join } from 'node:path'
import type * as pathRights from '#access/path-rights.ts'
import type * as realmService from '#access/realm-service.ts'
import type { AccessService } from '#access/service.ts'
import type * as accessWorld from '#access/world.ts'
import type * as nodeKeys from '#backup/node-keys.ts'
import type * as waysElsewhere from '#backup/places.ts'
import type * as backup from '#backup/service.ts'
import type * as upkeep from '#backup/upkeep.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import { daemonFlags } from '#base/node-flags.ts'
import type { Log } from '#base/log.ts'
import { loaderFor, onDemand, once } from '#base/on-demand.ts'
import { type Random, systemRandom } from '#base/random.ts'
import type * as acmeAccounts from '#cluster/acme/accounts.ts'
import type * as acmePlugins from '#cluster/acme/plugins.ts'
import type * as backupJobs from '#cluster/backup-jobs.ts'
import type * as certificates from '#cluster/certificates.ts'
import type * as cpuModels from '#cluster/cpu-models.ts'
import type * as datastoreJobs from '#cluster/datastore-jobs.ts'
import { devicesByName } from '#cluster/device-names.ts'
import type * as machineFiles from '#cluster/machine-files.ts'
import type * as mappings from '#cluster/mappings.ts'
import type * as nodeConfig from '#cluster/node-config.ts'
import type * as nodeFacts from '#cluster/node-facts.ts'
import type * as options from '#cluster/options.ts'
import type * as packageSources from '#cluster/package-sources.ts'
import type * as planJobs from '#cluster/plan-jobs.ts'
import type * as realmSyncJobs from '#cluster/realm-sync-jobs.ts'
import type * as subscription from '#cluster/subscription.ts'
import type * as consoles from '#consoles/service.ts'
import type * as sharedLine from '#consoles/shared-line.ts'
import type * as spice from '#consoles/spice-service.ts'
import type * as directories from '#disks/directories.ts'
import type * as keptTrees from '#guests/lxc/kept-trees.ts'
import { GuestService } from '#guests/service.ts'
import type { DiskServerProgram } from '#host/nbd/disk-server.ts'
import { machine } from '#host/exec.ts'
import { makeDirectory } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import type * as hostNetwork from '#network/machine/service.ts'
import { NetworkService } from '#network/service.ts'
import type * as history from '#observe/history.ts'
import type * as metricServers from '#observe/metric-servers.ts'
import type * as plans from '#plans/service.ts'
import type { ApiOfTask } from '#plans/world.ts'
import type * as pools from '#pools/service.ts'
import type * as fileMachines from '#recovery/file-machine/service.ts'
import type * as recovery from '#recovery/service.ts'
import { StorageService } from '#storage/service.ts'
import { openSqliteStore } from '#store/sqlite.ts'
import type { Store } from '#store/store.ts'
import type { TaskService } from '#tasks/service.ts'
import { type Settings, settingsToEnv, storePathOf } from './settings.ts'

export interface Services {
  readonly settings: Settings
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly host: Host
  readonly store: Store
  readonly storage: StorageService
  readonly network: NetworkService
  readonly hostNetwork: hostNetwork.HostNetwork
  readonly guests: GuestService
  readonly templateTrees: keptTrees.KeptTrees
  /** How the node gets into its datastores. */
  readonly nodeKeys: nodeKeys.NodeKeys
  readonly backup: backup.BackupService
  readonly upkeep: upkeep.DatastoreUpkeep
  readonly recovery: recovery.RecoveryService
  readonly plans: plans.PlanService
  readonly planJobs: planJobs.PlanJobs
  readonly apiOf: ApiOfTask
  /** Files on the disks of backups. */
  readonly fileMachines: fileMachines.FileMachines
  readonly pools: pools.PoolService
  readonly accessState: accessWorld.AccessState
  readonly realms: realmService.RealmService
  readonly rights: pathRights.PathRights
  readonly options: options.ClusterOptions
  readonly mappings: mappings.Mappings
  readonly cpuModels: cpuModels.CpuModels
  readonly backupJobs: backupJobs.BackupJobs
  readonly datastoreJobs: datastoreJobs.DatastoreJobs
  readonly realmSyncJobs: realmSyncJobs.RealmSyncJobs
  readonly machine: machineFiles.MachineFiles
  readonly nodeConfigs: nodeConfig.NodeConfigs
  readonly acmeAccounts: acmeAccounts.AcmeAccounts
  readonly acmePlugins: acmePlugins.AcmePlugins
  readonly certificates: certificates.Certificates
  readonly packageSources: packageSources.PackageSources
  readonly directories: directories.Directories
  readonly subscriptions: subscription.Subscriptions
  readonly history: history.History
  readonly metricServers: metricServers.MetricServers
  readonly node: nodeFacts.NodeFacts
  readonly consoles: consoles.ConsoleService
  readonly serialLines: sharedLine.SharedLines
  readonly spice: spice.SpiceService
}

/** What the API's handlers reach. */
export interface NodeServices extends Services {
  readonly access: AccessService
  readonly tasks: TaskService
}

export interface BuildOptions {
  readonly log: Log
  /** Look over the whole store first: the daemon does, a task relies on it. */
  readonly isStoreChecked: boolean
  /** Nobody is kept waiting for long by what is elsewhere: the daemon answers people. */
  readonly isAsked?: boolean
}

/** What serves the disks of a backup to a guest that is restored from it while it runs. */
export function diskServerOf(settings: Settings): DiskServerProgram {
  const entry = join(import.meta.dirname, 'disk-server.ts')
  const compiled = join(settings.cacheDir, 'compiled')
  return {
    command: [process.execPath, ...daemonFlags, entry],
    env: { ...settingsToEnv(settings), NODE_COMPILE_CACHE: compiled },
  }
}

type Base = Pick<Services, 'settings' | 'clock' | 'random' | 'log' | 'host' | 'store'>

/** @throws Fault `damaged` when the store is; `exhausted` without space */
export async function buildServices(
  settings: Settings,
  { log, isStoreChecked, isAsked = false }: BuildOptions,
): Promise<Services> {
  // Guests' processes pass through on their way to their disks and sockets; they list nothing.
  for (const directory of [settings.stateDir, settings.runDir, settings.cacheDir]) await makeDirectory(directory)
  const store = await openSqliteStore(storePathOf(settings), { isChecked: isStoreChecked })
  const base = { settings, clock: systemClock, random: systemRandom, log, host: machine(), store }
  return servicesOn(base, isAsked ? 'somebody' : 'task')
}

const load = loaderFor(import.meta.url)

function servicesOn(base: Base, waiting: 'somebody' | 'task'): Services {
  const { settings, host, store } = base
  const diskServer = diskServerOf(settings)
  const places = once(() => new (load<typeof waysElsewhere>('#backup/places.ts').Places)({ ...base, waiting }))
  const isAlone = waiting === 'task'
  return onDemand<Services, Base>(base, {
    storage: () => new StorageService({ ...base, elsewhere: places }),
    network: () => new NetworkService(base),
    guests: (services) => {
      const devices = devicesByName(services, settings.node)
      const { storage, network } = services
      return new GuestService({ ...base, storage, network, devices, diskServer })
    },
    hostNetwork: () => new (load<typeof hostNetwork>('#network/machine/service.ts').HostNetwork)(base),
    templateTrees: () => {
      // Where the storage `local` is, so that both may share blocks.
      const directory = join(settings.stateDir, 'template-trees')
      return new (load<typeof keptTrees>('#guests/lxc/kept-trees.ts').KeptTrees)({ ...base, directory })
    },
    nodeKeys: () => new (load<typeof nodeKeys>('#backup/node-keys.ts').NodeKeys)(base),
    backup: ({ storage, guests, nodeKeys: keys }) => {
      const neededBy = guests.filledFrom.bind(guests)
      const listsDir = join(settings.stateDir, 'backup-lists')
      return new (load<typeof backup>('#backup/service.ts').BackupService)({
        ...base,
        storage,
        places: places(),
        keys,
        neededBy,
        listsDir,
        isAlone,
      })
    },
    upkeep: ({ storage, nodeKeys: keys }) =>
      new (load<typeof upkeep>('#backup/upkeep.ts').DatastoreUpkeep)({
        ...base,
        storage,
        places: places(),
        keys,
        isAlone,
      }),
    recovery: () => new (load<typeof recovery>('#recovery/service.ts').RecoveryService)(settings),
    plans: () => new (load<typeof plans>('#plans/service.ts').PlanService)(base),
    // What it needs of the command line is loaded for plans alone.
    apiOf: () => async (upid, signal) => (await import('./api-caller.ts')).apiCaller(settings, upid, signal),
    fileMachines: () =>
      new (load<typeof fileMachines>('#recovery/file-machine/service.ts').FileMachines)({ settings, host, diskServer }),
    pools: () => {
      const { keyOf } = load<typeof accessWorld>('#access/world.ts')
      return new (load<typeof pools>('#pools/service.ts').PoolService)({ store, rightsMark: keyOf.version })
    },
    accessState: (services) =>
      new (load<typeof accessWorld>('#access/world.ts').AccessState)(store, () => services.pools.poolsOf()),
    realms: ({ accessState }) =>
      new (load<typeof realmService>('#access/realm-service.ts').RealmService)({ store, accessState }),
    rights: ({ accessState }) => new (load<typeof pathRights>('#access/path-rights.ts').PathRights)({ accessState }),
    ...partsOfCluster(base),
    directories: () => new (load<typeof directories>('#disks/directories.ts').Directories)(base),
    history: () => new (load<typeof history>('#observe/history.ts').History)(join(settings.stateDir, 'history')),
    metricServers: () => new (load<typeof metricServers>('#observe/metric-servers.ts').MetricServers)(base),
    consoles: () => new (load<typeof consoles>('#consoles/service.ts').ConsoleService)(base),
    serialLines: () => new (load<typeof sharedLine>('#consoles/shared-line.ts').SharedLines)(),
    spice: () => new (load<typeof spice>('#consoles/spice-service.ts').SpiceService)(base),
  })
}

/** What is configured of the node and the cluster. */
function partsOfCluster(base: Base) {
  const { settings, random } = base
  return {
    options: () => new (load<typeof options>('#cluster/options.ts').ClusterOptions)(base),
    mappings: () => new (load<typeof mappings>('#cluster/mappings.ts').Mappings)(base),
    cpuModels: () => new (load<typeof cpuModels>('#cluster/cpu-models.ts').CpuModels)(base),
    backupJobs: () => new (load<typeof backupJobs>('#cluster/backup-jobs.ts').BackupJobs)(base),
    datastoreJobs: () => new (load<typeof datastoreJobs>('#cluster/datastore-jobs.ts').DatastoreJobs)(base),
    realmSyncJobs: () => new (load<typeof realmSyncJobs>('#cluster/realm-sync-jobs.ts').RealmSyncJobs)(base),
    machine: () => {
      const { machineRoot: root } = settings
      return new (load<typeof machineFiles>('#cluster/machine-files.ts').MachineFiles)({
        root,
        isOwn: root !== undefined,
        random,
      })
    },
    nodeConfigs: () => new (load<typeof nodeConfig>('#cluster/node-config.ts').NodeConfigs)(base),
    acmeAccounts: () => new (load<typeof acmeAccounts>('#cluster/acme/accounts.ts').AcmeAccounts)(base),
    acmePlugins: () => new (load<typeof acmePlugins>('#cluster/acme/plugins.ts').AcmePlugins)(base),
    certificates: () => new (load<typeof certificates>('#cluster/certificates.ts').Certificates)(base),
    packageSources: () => new (load<typeof packageSources>('#cluster/package-sources.ts').PackageSources)(settings),
    subscriptions: () => new (load<typeof subscription>('#cluster/subscription.ts').Subscriptions)(base),
    node: () => new (load<typeof nodeFacts>('#cluster/node-facts.ts').NodeFacts)(base),
    planJobs: () => new (load<typeof planJobs>('#cluster/plan-jobs.ts').PlanJobs)(base),
  }
}
