/** A network namespace that stands for a machine with two network cards. */
import { systemClock } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { machine } from '#host/exec.ts'
import { settingsFrom } from '#settings.ts'
import { MemoryWorld, openMemoryStore } from '#store/memory.ts'
import { observe } from './observe.ts'
import { HostNetwork } from './service.ts'

const host = machine()
let machines = 0

/** A machine with two cards; `eth0` has an address and the way to everywhere else. */
export async function smallMachine() {
  const netns = `hx-nw-${process.pid}-${++machines}`
  const cable = ['a', 'b'].map((end) => `hx${end}${process.pid}x${machines}`)
  await host.run(['ip', 'netns', 'add', netns])
  // The other end of a cable is outside, as a switch is.
  const batch = [
    'link set dev lo up',
    ...cable.flatMap((end, card) => [
      `link add name eth${card} type veth peer name ${end} netns ${process.pid}`,
      `link set dev eth${card} up`,
    ]),
    'address add 10.9.0.2/24 dev eth0',
    'route add default via 10.9.0.1',
  ]
  const run = (...words: string[]) => host.run(['ip', '-netns', netns, ...words])
  const remove = () => host.run(['ip', 'netns', 'delete', netns])
  await host.run(['ip', '-netns', netns, '-batch', '-'], { input: batch.join('\n') }).catch(async (error: unknown) => {
    await remove()
    throw error
  })
  const settings = settingsFrom({ HAKO_INSTANCE: 'nwtest', HAKO_NETWORK: 'own' })
  const store = openMemoryStore(new MemoryWorld())
  const place = { netns }
  const needs = { settings, store, host, clock: systemClock, random: systemRandom, log: silentLog, place }
  const network = new HostNetwork(needs)
  return {
    netns,
    network,
    store,
    run,
    /** Names, addresses, routes, and who is plugged in where. */
    async look() {
      const now = await observe(host, place)
      const links = Object.values(now).map(({ name, kind, isUp, master, addresses, routes }) => {
        return { name, kind, isUp, master, addresses, routes }
      })
      const lists = await store.list('network/machine/')
      return {
        links,
        lists: lists.map(({ key, value }) => ({ key, value })),
        notice: await network.confirmations.current(),
      }
    },
    async [Symbol.asyncDispose]() {
      await remove()
    },
  }
}

export type SmallMachine = Awaited<ReturnType<typeof smallMachine>>

/** The address of `eth0` and its way out move onto a bridge. */
export const bridgeOverCard = {
  type: 'bridge',
  autostart: true,
  bridge_ports: 'eth0',
  cidr: '10.9.0.2/24',
  gateway: '10.9.0.1',
}
