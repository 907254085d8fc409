/** The history of a node, its guests and storages: one ring for each, below one directory. */
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { invalid } from '#base/fault.ts'
import { makeDirectory, writeFileAtomic } from '#host/files.ts'
import { drawGraph } from './graph.ts'
import { type Consolidation, type Measurement, RingFile, type Row, type Timeframe } from './ring-file.ts'

/** Columns of each kind, in the order of the file; names are the wire's. */
const columns = {
  node: [
    'cpu',
    'iowait',
    'loadavg',
    'maxcpu',
    'memtotal',
    'memused',
    'memavailable',
    'swaptotal',
    'swapused',
    'roottotal',
    'rootused',
    'netin',
    'netout',
    'pressurecpusome',
    'pressureiosome',
    'pressureiofull',
    'pressurememorysome',
    'pressurememoryfull',
  ],
  guest: ['cpu', 'maxcpu', 'mem', 'maxmem', 'memhost', 'disk', 'maxdisk', 'netin', 'netout', 'diskread', 'diskwrite'],
  storage: ['total', 'used'],
} as const
export type Kind = keyof typeof columns

export class History {
  readonly #directory: string

  /** @param directory below the node's state */
  constructor(directory: string) {
    this.#directory = directory
  }

  async record(kind: Kind, name: string, timeSeconds: number, values: Measurement): Promise<void> {
    await this.#ring(kind, name).record(timeSeconds, values)
  }

  async rows(kind: Kind, name: string, query: RowQuery): Promise<Row[]> {
    return this.#ring(kind, name).rows(query.timeframe, query.how, query.nowSeconds)
  }

  /**
   * Draws columns into a file and returns its path. There is one for each subject and question, written over by the next.
   * @throws Fault `invalid` naming `ds` for a column that is not measured
   */
  async draw(kind: Kind, name: string, names: readonly string[], query: RowQuery): Promise<string> {
    const unknown = names.find((column) => !this.columnsOf(kind).includes(column))
    if (names.length === 0 || unknown !== undefined) throw invalid({ ds: `unknown data source '${unknown ?? ''}'` })
    const picture = drawGraph(await this.rows(kind, name, query), names)
    const directory = join(this.#directory, 'graphs')
    await makeDirectory(directory, 0o700)
    const path = join(directory, `${kind}-${name}-${query.timeframe}-${query.how.toLowerCase()}.png`)
    await writeFileAtomic(path, picture)
    return path
  }

  /** Removes what is kept of those that are gone. */
  async keepOnly(kind: Kind, names: ReadonlySet<string>): Promise<void> {
    const kept = await readdir(join(this.#directory, kind)).catch((): string[] => [])
    for (const name of kept) if (!names.has(name)) await rm(join(this.#directory, kind, name), { force: true })
  }

  columnsOf(kind: Kind): readonly string[] {
    return columns[kind]
  }

  #ring(kind: Kind, name: string): RingFile {
    return new RingFile(join(this.#directory, kind, name), columns[kind])
  }
}

export interface RowQuery {
  readonly timeframe: Timeframe
  readonly how: Consolidation
  readonly nowSeconds: number
}
