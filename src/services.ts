/**
 * The services of one node. The same set is built in the daemon and in every task's process; what only
 * the daemon has (who may call, which tasks run) is added by `main.ts`.
 */
import { join } from 'node:path'
import type { AccessService } from '#access/service.ts'
import { PathRights } from '#access/path-rights.ts'
import { RealmService } from '#access/realm-service.ts'
import { AccessState, keyOf } from '#access/world.ts'
import { NodeKeys } from '#backup/node-keys.ts'
import { Places } from '#backup/places.ts'
import { BackupService } from '#backup/service.ts'
import { AcmeAccounts } from '#cluster/acme/accounts.ts'
import { AcmePlugins } from '#cluster/acme/plugins.ts'
import { BackupJobs } from '#cluster/backup-jobs.ts'
import { Certificates } from '#cluster/certificates.ts'
import { MachineFiles } from '#cluster/machine-files.ts'
import { NodeConfigs } from '#cluster/node-config.ts'
import { NodeFacts } from '#cluster/node-facts.ts'
import { CpuModels } from '#cluster/cpu-models.ts'
import { devicesByName } from '#cluster/device-names.ts'
import { Mappings } from '#cluster/mappings.ts'
import { PackageSources } from '#cluster/package-sources.ts'
import { ClusterOptions } from '#cluster/options.ts'
import { PlanJobs } from '#cluster/plan-jobs.ts'
import { RealmSyncJobs } from '#cluster/realm-sync-jobs.ts'
import { Subscriptions } from '#cluster/subscription.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import { daemonFlags } from '#base/daemon-flags.ts'
import type { VolumeId } from '#base/ids.ts'
import type { Log } from '#base/log.ts'
import { type Random, systemRandom } from '#base/random.ts'
import { ConsoleService } from '#consoles/service.ts'
import { SharedLines } from '#consoles/shared-line.ts'
import { SpiceService } from '#consoles/spice-service.ts'
import { KeptTrees } from '#guests/lxc/kept-trees.ts'
import type { DiskServerProgram } from '#host/disk-server.ts'
import { GuestService } from '#guests/service.ts'
import { Directories } from '#disks/directories.ts'
import { machine } from '#host/exec.ts'
import { makeDirectory } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { HostNetwork } from '#network/machine/service.ts'
import { NetworkService } from '#network/service.ts'
import { History } from '#observe/history.ts'
import { MetricServers } from '#observe/metric-servers.ts'
import { PlanService } from '#plans/service.ts'
import type { ApiOfTask } from '#plans/world.ts'
import { PoolService } from '#pools/service.ts'
import { FileMachines } from '#recovery/file-machine/service.ts'
import { RecoveryService } from '#recovery/service.ts'
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
  readonly hostNetwork: HostNetwork
  readonly guests: GuestService
  readonly templateTrees: KeptTrees
  /** How the node gets into its datastores. */
  readonly nodeKeys: NodeKeys
  readonly backup: BackupService
  readonly recovery: RecoveryService
  readonly plans: PlanService
  readonly planJobs: PlanJobs
  readonly apiOf: ApiOfTask
  /** Files on the disks of backups. */
  readonly fileMachines: FileMachines
  readonly pools: PoolService
  readonly accessState: AccessState
  readonly realms: RealmService
  readonly rights: PathRights
  readonly options: ClusterOptions
  readonly mappings: Mappings
  readonly cpuModels: CpuModels
  readonly backupJobs: BackupJobs
  readonly realmSyncJobs: RealmSyncJobs
  readonly machine: MachineFiles
  readonly nodeConfigs: NodeConfigs
  readonly acmeAccounts: AcmeAccounts
  readonly acmePlugins: AcmePlugins
  readonly certificates: Certificates
  readonly packageSources: PackageSources
  readonly directories: Directories
  readonly subscriptions: Subscriptions
  readonly history: History
  readonly metricServers: MetricServers
  readonly node: NodeFacts
  readonly consoles: ConsoleService
  readonly serialLines: SharedLines
  readonly spice: SpiceService
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

/** @throws Fault `damaged` when the store is; `exhausted` without space */
export async function buildServices(
  settings: Settings,
  { log, isStoreChecked, isAsked = false }: BuildOptions,
): Promise<Services> {
  // Guests' processes pass through on their way to their disks and sockets; they list nothing.
  for (const directory of [settings.stateDir, settings.runDir, settings.cacheDir]) await makeDirectory(directory)
  const [clock, random, host] = [systemClock, systemRandom, machine()]
  const store = await openSqliteStore(storePathOf(settings), { isChecked: isStoreChecked })
  const base = { settings, clock, random, log, host, store }
  const places = new Places({ ...base, waiting: isAsked ? 'somebody' : 'task' })
  const storage = new StorageService({ ...base, elsewhere: places })
  const network = new NetworkService(base)
  const [mappings, cpuModels] = [new Mappings(base), new CpuModels(base)]
  const devices = devicesByName({ mappings, cpuModels, node: settings.node })
  const diskServer = diskServerOf(settings)
  const guests = new GuestService({ ...base, storage, network, devices, diskServer })
  const nodeKeys = new NodeKeys(base)
  const neededBy = (volid: VolumeId) => guests.filledFrom(volid)
  const listsDir = join(settings.stateDir, 'backup-lists')
  const backup = new BackupService({ ...base, storage, places, keys: nodeKeys, neededBy, listsDir })
  const recovery = new RecoveryService(settings)
  const pools = new PoolService({ store, rightsMark: keyOf.version })
  const accessState = new AccessState(store, () => pools.poolsOf())
  return {
    ...base,
    storage,
    network,
    hostNetwork: new HostNetwork(base),
    guests,
    // Where the storage `local` is, so that both may share blocks.
    templateTrees: new KeptTrees({ ...base, directory: join(settings.stateDir, 'template-trees') }),
    nodeKeys,
    backup,
    recovery,
    plans: new PlanService(base),
    planJobs: new PlanJobs(base),
    // What it needs of the command line is loaded for plans alone.
    apiOf: async (upid, signal) => (await import('./api-caller.ts')).apiCaller(settings, upid, signal),
    fileMachines: new FileMachines({ settings, host, diskServer }),
    pools,
    accessState,
    realms: new RealmService({ store, accessState }),
    rights: new PathRights({ accessState }),
    options: new ClusterOptions(base),
    mappings,
    cpuModels,
    backupJobs: new BackupJobs(base),
    realmSyncJobs: new RealmSyncJobs(base),
    machine: new MachineFiles({ root: settings.machineRoot, isOwn: settings.machineRoot !== undefined, random }),
    nodeConfigs: new NodeConfigs(base),
    acmeAccounts: new AcmeAccounts(base),
    acmePlugins: new AcmePlugins(base),
    certificates: new Certificates(base),
    packageSources: new PackageSources(settings),
    directories: new Directories(base),
    subscriptions: new Subscriptions(base),
    history: new History(join(settings.stateDir, 'history')),
    metricServers: new MetricServers(base),
    node: new NodeFacts(base),
    consoles: new ConsoleService(base),
    serialLines: new SharedLines(),
    spice: new SpiceService(base),
  }
}
