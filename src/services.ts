/**
 * The services of one node. The same set is built in the daemon and in every task's process; what only
 * the daemon has (who may call, which tasks run) is added by `main.ts`.
 */
import { join } from 'node:path'
import type { AccessService } from '#access/service.ts'
import { keyOf } from '#access/world.ts'
import { BackupService } from '#backup/service.ts'
import { AcmeAccounts } from '#cluster/acme/accounts.ts'
import { AcmePlugins } from '#cluster/acme/plugins.ts'
import { BackupJobs } from '#cluster/backup-jobs.ts'
import { Certificates } from '#cluster/certificates.ts'
import { MachineFiles } from '#cluster/machine-files.ts'
import { NodeConfigs } from '#cluster/node-config.ts'
import { NodeFacts } from '#cluster/node-facts.ts'
import { PackageSources } from '#cluster/package-sources.ts'
import { ClusterOptions } from '#cluster/options.ts'
import { Subscriptions } from '#cluster/subscription.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import { type Random, systemRandom } from '#base/random.ts'
import { GuestService } from '#guests/service.ts'
import { Directories } from '#disks/directories.ts'
import { machine } from '#host/exec.ts'
import { makeDirectory } from '#host/files.ts'
import type { Host } from '#host/host.ts'
import { NetworkService } from '#network/service.ts'
import { History } from '#observe/history.ts'
import { PoolService } from '#pools/service.ts'
import { RecoveryService } from '#recovery/service.ts'
import { StorageService } from '#storage/service.ts'
import { openSqliteStore } from '#store/sqlite.ts'
import type { Store } from '#store/store.ts'
import type { TaskService } from '#tasks/service.ts'
import type { Settings } from './settings.ts'

export interface Services {
  readonly settings: Settings
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly host: Host
  readonly store: Store
  readonly storage: StorageService
  readonly network: NetworkService
  readonly guests: GuestService
  readonly backup: BackupService
  readonly recovery: RecoveryService
  readonly pools: PoolService
  readonly options: ClusterOptions
  readonly backupJobs: BackupJobs
  readonly machine: MachineFiles
  readonly nodeConfigs: NodeConfigs
  readonly acmeAccounts: AcmeAccounts
  readonly acmePlugins: AcmePlugins
  readonly certificates: Certificates
  readonly packageSources: PackageSources
  readonly directories: Directories
  readonly subscriptions: Subscriptions
  readonly history: History
  readonly node: NodeFacts
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
}

/** @throws Fault `damaged` when the store is; `exhausted` without space */
export async function buildServices(settings: Settings, { log, isStoreChecked }: BuildOptions): Promise<Services> {
  // Guests' processes pass through on their way to their disks and sockets; they list nothing.
  for (const directory of [settings.stateDir, settings.runDir, settings.cacheDir]) await makeDirectory(directory)
  const [clock, random, host] = [systemClock, systemRandom, machine()]
  const store = await openSqliteStore(join(settings.stateDir, 'store.sqlite'), { isChecked: isStoreChecked })
  const base = { settings, clock, random, log, host, store }
  const storage = new StorageService(base)
  const network = new NetworkService(base)
  const guests = new GuestService({ ...base, storage, network })
  const backup = new BackupService({ ...base, storage })
  const recovery = new RecoveryService(settings)
  const pools = new PoolService({ store, rightsMark: keyOf.version })
  return {
    ...base,
    storage,
    network,
    guests,
    backup,
    recovery,
    pools,
    options: new ClusterOptions(base),
    backupJobs: new BackupJobs(base),
    machine: new MachineFiles({ root: settings.machineRoot, isOwn: settings.machineRoot !== undefined, random }),
    nodeConfigs: new NodeConfigs(base),
    acmeAccounts: new AcmeAccounts(base),
    acmePlugins: new AcmePlugins(base),
    certificates: new Certificates(base),
    packageSources: new PackageSources(settings),
    directories: new Directories(base),
    subscriptions: new Subscriptions(base),
    history: new History(join(settings.stateDir, 'history')),
    node: new NodeFacts(base),
  }
}
