/**
 * Who may import whom: the one authority. `tidy.test.ts` enforces it and ARCHITECTURE.md is held to it.
 *
 * Floors, from the bottom: base · host, store · the nouns of the field · operations, loops, views ·
 * rest, api · http, cli, lab. Inside the floor of nouns the sideways arrows are guests → storage, network and backup → datastore.
 */
const nouns = [
  'access',
  'backup',
  'cluster',
  'consoles',
  'datastore',
  'disks',
  'guests',
  'network',
  'observe',
  'plans',
  'pools',
  'recovery',
  'storage',
  'tasks',
] as const
const floor1 = ['base', 'host', 'store'] as const

export const mayImport: Readonly<Record<string, readonly string[]>> = {
  base: [],
  host: ['base'],
  store: ['base'],
  tasks: floor1,
  access: floor1,
  cluster: floor1,
  consoles: floor1,
  disks: floor1,
  storage: floor1,
  network: floor1,
  guests: [...floor1, 'storage', 'network'],
  datastore: floor1,
  backup: [...floor1, 'datastore'],
  plans: floor1,
  pools: floor1,
  observe: floor1,
  recovery: floor1,
  operations: [...floor1, ...nouns],
  views: [...floor1, ...nouns, 'rest'],
  loops: [...floor1, ...nouns, 'operations'],
  rest: ['base'],
  api: [...floor1, ...nouns, 'rest', 'operations', 'views'],
  http: ['base', 'host', 'rest'],
  cli: ['base', 'rest', 'views', 'http', 'api', 'lab', 'recovery', 'host', 'datastore', 'backup', 'plans'],
  lab: ['base', 'host', 'rest', 'network', 'store', 'guests', 'http', 'recovery'],
}

/** Files directly in `src/`: they compose, so they may see everything. */
export const compositionRoots: readonly string[] = [
  'main',
  'front',
  'worker',
  'disk-server',
  'services',
  'settings',
  'commands',
  'api-caller',
  'prepare-node',
  'serve',
]

/** What any folder may take from the composition roots: the set of services as a type, the settings, the list of commands. */
export const commonRoots: readonly string[] = ['services', 'settings', 'commands']

/** The door of `datastore/`: it opens rooms on demand, so it may see all of them. */
export const datastoreDoor: readonly string[] = ['create-datastore', 'datastore']

/** The rooms of `datastore/`, from the bottom, on what lies beside them: each may take from those before it. */
export const datastoreRooms: readonly (readonly string[])[] = [
  ['backup-id', 'deps', 'digests', 'foreign', 'format', 'go-on', 'point', 'sealed', 'window'],
  ['places'],
  ['keys'],
  ['packs'],
  ['index'],
  ['chunks'],
  ['points'],
  ['maps'],
  ['tree'],
  datastoreDoor,
  ['tidy'],
  ['locks'],
  ['backup'],
  ['restore'],
  ['verify'],
  ['collect'],
  ['copy'],
  ['serve'],
]

export const bannedNames: readonly string[] = ['index', 'utils', 'util', 'helpers', 'helper', 'common', 'misc']
export const longestFile = 400
