/** Backups that need not be kept go: by hand, and after a new one was made. */
import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { planPruning, pruneBackups } from '#operations/backup/prune.ts'
import { everyStepFails } from '#tasks/conformance.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import { type BackupWorld, backupWorld, task } from './backup-world.ts'

let world: BackupWorld
before(async () => {
  world = await backupWorld()
  // A guest without disks is backed up as well, and fast.
  for (const vmid of [100, 101]) await world.define(vmid)
})
after(() => world[Symbol.asyncDispose]())

const volumes = async (vmid?: number) => (await world.backup.list({ storage: 'vault', vmid })).map(({ volid }) => volid)

async function clear(): Promise<void> {
  for (const volid of await volumes()) {
    await world.backup.annotate(volid, { protected: false })
    await world.backup.remove(volid)
  }
}

/** So many backups of a guest, oldest first; each is a second later than the one before. */
async function make(vmid: number, count: number): Promise<string[]> {
  for (let number = 0; number < count; number += 1) await world.run({ vmids: [vmid], prunes: false })
  return volumes(vmid)
}

suite('pruning', () => {
  everyStepFails(
    pruneBackups,
    async () => {
      await clear()
      await make(100, 2)
      return {
        params: { storage: 'vault', keep: 'keep-last=1' },
        deps: world.deps,
        // Names hold the time; what is left of two is the second.
        look: async () => (await world.backup.list({ storage: 'vault' })).map(({ vmid, damage }) => ({ vmid, damage })),
        [Symbol.asyncDispose]: async () => {},
      }
    },
    { isFinal: true, withCrashes: false },
  )

  test('removes what the plan says, guest by guest, and spares what is protected', async () => {
    await clear()
    const [first = '', second = '', third = '', fourth = ''] = await make(100, 4)
    const [other = ''] = await make(101, 1)
    await world.backup.annotate(second as never, { protected: true })
    const params = { storage: 'vault', keep: 'keep-last=1' }
    const marks = (await planPruning(world.deps, params)).backups.map(({ volid, mark }) => [volid, mark])
    assert.deepEqual(marks, [
      [first, 'remove'],
      [second, 'protected'],
      [third, 'remove'],
      [fourth, 'keep'],
      [other, 'keep'],
    ])
    assert.equal((await volumes()).length, 5)
    const log: string[] = []
    await perform(pruneBackups, params, world.deps, memoryJournal(), { task, log: (line) => void log.push(line) })
    assert.deepEqual((await volumes()).toSorted(), [second, fourth, other])
    assert.deepEqual([log[0], log.at(-1)], ['keep backups by keep-last=1', '2 of 5 backups removed'])
    assert.ok(log.includes(`removed backup '${first}'`))
    // What is left is sound.
    await world.backup.verifyAll('vault')
  })

  test('touches nothing of other guests, of containers, and where all is kept', async () => {
    await clear()
    await make(100, 2)
    await make(101, 2)
    const run = (params: object) =>
      perform(pruneBackups, { storage: 'vault', ...params }, world.deps, memoryJournal(), { task })
    await run({})
    await run({ keep: 'keep-all=1' })
    await run({ keep: 'keep-last=1', type: 'lxc' })
    assert.equal((await volumes()).length, 4)
    await run({ keep: 'keep-last=1', vmid: 101 })
    assert.deepEqual([(await volumes(100)).length, (await volumes(101)).length], [2, 1])
  })
})

suite('a backup', () => {
  test('prunes those of its guest once it is there, by its own rule or that of its storage', async () => {
    await clear()
    await make(101, 2)
    const [first = '', second = ''] = await make(100, 2)
    const log: string[] = []
    const [third = ''] = await world.run({ vmids: [100], keep: 'keep-last=2' }, log)
    assert.deepEqual(await volumes(100), [second, third])
    assert.deepEqual(
      log.filter((line) => /prune|removed/.test(line)),
      [
        'INFO: prune older backups by keep-last=2',
        `INFO: removed backup '${first}'`,
        'INFO: pruned 1 backups of VM 100',
      ],
    )
    await world.storage.update('vault', { set: { 'prune-backups': 'keep-last=1' } })
    await world.run({ vmids: [100], prunes: false })
    assert.equal((await volumes(100)).length, 3)
    await world.run({ vmids: [100], keep: 'keep-all=1' })
    assert.equal((await volumes(100)).length, 4)
    const [last] = await world.run({ vmids: [100] })
    assert.deepEqual([await volumes(100), (await volumes(101)).length], [[last], 2])
    await world.storage.update('vault', { remove: ['prune-backups'] })
  })

  test('that fails prunes nothing', async () => {
    await clear()
    const before = await make(100, 2)
    const signal = AbortSignal.abort()
    const params = { vmids: [100], storage: 'vault', mode: 'snapshot', keep: 'keep-last=1' } as const
    const { backupGuests } = await import('#operations/backup/run.ts')
    await assert.rejects(perform(backupGuests, params, world.deps, memoryJournal(), { task, signal }), isFault)
    assert.deepEqual(await volumes(100), before)
  })

  test('is protected only while its guest has fewer such backups than its storage allows', async () => {
    await clear()
    const protect = { vmids: [100], protected: true }
    await world.storage.update('vault', { set: { 'max-protected-backups': 1 } })
    await world.run(protect)
    await assert.rejects(world.run(protect), {
      kind: 'conflict',
      message: "the number of protected backups of guest 100 is limited to 1 on storage 'vault'",
    })
    await world.run({ vmids: [100] })
    await world.run({ vmids: [101], protected: true })
    await world.storage.update('vault', { set: { 'max-protected-backups': -1 } })
    await world.run(protect)
    await world.storage.update('vault', { remove: ['max-protected-backups'] })
    await world.run(protect)
    assert.equal((await volumes(100)).length, 4)
  })
})
