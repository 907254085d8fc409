/** Nodes with a network of their own on this machine, and computers to plug into it: real bridges, namespaces and packets. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { machine } from '#host/exec.ts'
import type { Argv } from '#host/host.ts'
import * as ip from '#host/network/ip.ts'
import { createNetns, inNetns, listNetns, removeNetns } from '#host/network/netns.ts'
import { listChains } from '#host/network/nft.ts'
import { findProcesses } from '#host/programs/proc.ts'
import { NetworkService } from '#network/service.ts'
import { settingsFrom } from '#settings.ts'
import { MemoryWorld, openMemoryStore } from '#store/memory.ts'
import { freshInstance } from './own-names.ts'

export const host = machine()

/** A node of its own on this machine: instance, directories, store. */
export async function node() {
  const instance = freshInstance('n')
  const directory = await mkdtemp(join(tmpdir(), 'hk-network-'))
  await chmod(directory, 0o711)
  const world = new MemoryWorld()
  const settings = settingsFrom({
    HAKO_INSTANCE: instance,
    HAKO_STATE_DIR: directory,
    HAKO_RUN_DIR: join(directory, 'run'),
    HAKO_CACHE_DIR: directory,
  })
  const service = (of: MemoryWorld = world) =>
    new NetworkService({
      settings,
      store: openMemoryStore(of),
      host,
      clock: systemClock,
      random: systemRandom,
      log: silentLog,
    })
  return {
    instance,
    directory,
    settings,
    network: service(),
    /** As another process of the same node sees it. */
    another: () => service(),
    /** As a node sees it whose store was lost. */
    withoutMemory: () => service(new MemoryWorld()),
    bridge: `hk${instance}0`,
    /** What of this node is on the machine now. */
    async remains() {
      const names = [...(await ip.links(host)).map(({ name }) => name), ...(await listNetns(host))]
      const chains = await listChains(host)
      const processes = await findProcesses((argv) => argv.some((word) => word.includes(directory)))
      return {
        names: names.filter((name) => name.startsWith(`hk${instance}`) || name.startsWith(`hk-${instance}-`)),
        tables: chains.filter(({ table }) => table === `hk_${instance}`),
        processes,
      }
    },
    async [Symbol.asyncDispose]() {
      await service().removeEverything()
      await service(new MemoryWorld()).removeEverything()
      await rm(directory, { recursive: true })
    },
  }
}
/** What shall remain. */
export const nothing = { names: [], tables: [], processes: [] }

/** A computer of its own: a namespace with one card, whose other end is plugged in here. */
export async function computer(name: string, plug: (cable: string) => Promise<void>) {
  const cable = `hx${name}`.slice(0, 15)
  await createNetns(host, name)
  await ip.addLink(host, cable, ['type', 'veth', 'peer', 'name', 'card', 'netns', name])
  await plug(cable)
  const run = (argv: Argv, okCodes = [0]) => host.run(inNetns(name, argv), { okCodes, timeoutMs: 60_000 })
  const { mac } = (await ip.findLink(host, 'card', { netns: name })) ?? { mac: '' }
  return {
    netns: name,
    mac,
    run,
    /** Asks for an address as a guest does, with busybox's client. */
    async dhcp(directory: string) {
      const script = join(directory, 'dhcp-script')
      const lines = ['#!/bin/sh', '[ "$1" = bound ] || exit 0', 'ip addr add $ip/$mask dev $interface']
      lines.push('[ -z "$router" ] || ip route add default via $router', 'echo "$ip $mask $router" > $0.said')
      await writeFile(script, `${lines.join('\n')}\n`, { mode: 0o755 })
      await ip.changeLink(host, 'card', { isUp: true }, { netns: name })
      await run(['busybox', 'udhcpc', '-i', 'card', '-n', '-q', '-f', '-t', '8', '-T', '1', '-s', script])
      const [address = '', mask, router] = (await readFile(`${script}.said`, 'utf8')).trim().split(' ')
      return { address, mask, router }
    },
    async [Symbol.asyncDispose]() {
      await removeNetns(host, name)
      await ip.deleteLink(host, cable)
    },
  }
}

/** A web server inside a namespace that says who asked; its name tells it from any proxy on the way. */
export async function webServer(netns: string, port: number) {
  const code = `require('http').createServer((q, r) => r.end('${netns} saw ' + q.socket.remoteAddress)).listen(${port}, '0.0.0.0', () => console.log('up'))`
  const [program, ...args] = inNetns(netns, [process.execPath, '-e', code])
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  return {
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      if (child.signalCode === null) await once(child, 'exit')
    },
  }
}
