/** All that is known of a node in one text, for a person who helps its owner. No secrets. */
import type { Host } from '#host/host.ts'
import { messageOf } from '#base/fault.ts'
import type { Argv } from '#host/host.ts'
import type { Services } from '#services.ts'

type Sources = Pick<
  Services,
  'settings' | 'host' | 'node' | 'machine' | 'options' | 'storage' | 'guests' | 'network' | 'backupJobs'
>

const programs: readonly Argv[] = [
  ['uptime'],
  ['uname', '-a'],
  ['lsblk', '--ascii', '-o', 'NAME,SIZE,TYPE,FSTYPE,MOUNTPOINTS'],
  ['df', '-h', '-x', 'tmpfs', '-x', 'devtmpfs'],
  ['ip', '-details', '-statistics', 'address'],
  ['ip', 'route', 'show'],
  ['qemu-system-x86_64', '--version'],
]

export async function nodeReport(sources: Sources): Promise<string> {
  const { settings, node, machine, options, storage, guests, network, backupJobs } = sources
  const parts: [string, unknown][] = [
    ['node', settings.node],
    ['kernel', node.kernel()],
    ['processor', await node.processor()],
    ['memory', await node.memory()],
    ['name servers', await machine.nameServers()],
    ['host names', (await machine.hosts()).data],
    ['cluster options', await options.all()],
    ['storages', await storage.list()],
    ['bridges', await network.bridges()],
    ['backup jobs', await backupJobs.list()],
    [
      'guests',
      (await guests.list()).map(({ vmid, name, state, options: of }) => ({ vmid, name, state, options: open(of) })),
    ],
  ]
  const texts = parts.map(([title, value]) => section(title, value))
  const outputs = await Promise.all(
    programs.map(async (argv) => section(argv.join(' '), await said(sources.host, argv))),
  )
  return [...texts, ...outputs].join('\n')
}

/** A program that is missing says so in its place. */
async function said(host: Host, argv: Argv): Promise<string> {
  return host.run(argv, { timeoutMs: 10_000 }).then(
    ({ stdout }) => stdout.trimEnd(),
    (fault: unknown) => `# ${messageOf(fault)}`,
  )
}

function section(title: string, value: unknown): string {
  return `==== ${title} ====\n${typeof value === 'string' ? value.trimEnd() : JSON.stringify(value, undefined, 2)}\n`
}

function open(options: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(options).map(([name, text]) => [name, name === 'cipassword' ? '**' : text]))
}
