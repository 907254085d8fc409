/** Files of a container that somebody writes to while they are read: the log has their names, and who hears of jobs is told. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { MiB } from '#base/bytes.ts'
import { unpackTemplate } from '#guests/lxc/unpack.ts'
import { volumesIn } from '#guests/lxc/mountpoint.ts'
import { type BackupGuests, backupGuests } from '#operations/backup/run.ts'
import { createContainer } from '#operations/guest/create-container.ts'
import { memoryJournal } from '#tasks/journal.ts'
import { perform } from '#tasks/perform.ts'
import { writeTemplate } from '../fixtures/containers/template.ts'
import { mailSystem } from '../fixtures/mail-system.ts'
import { backupWorld, task } from './backup-world.ts'

suite('files that are written to while they are read', { timeout: 120_000 }, () => {
  test('are named in the log up to a bound, and counted in the report', async () => {
    await using world = await backupWorld()
    await using mail = await mailSystem()
    const template = join(world.settings.stateDir, 'template.tar')
    await writeTemplate(template)
    const options = { hostname: 'web', memory: '64', ostype: 'unmanaged', unprivileged: '1', rootfs: 'local:0' }
    const made = { ...world.deps, templateTrees: { fill: unpackTemplate } }
    await perform(createContainer, { vmid: 100, template, options }, made, memoryJournal(), { task })
    const [root] = volumesIn((await world.guests.config(world.id(100), 'lxc')).options)
    assert.ok(root)
    const folder = join((await world.storage.location(root.volid)).path, 'srv/logs')
    await mkdir(folder)
    const files = Array.from({ length: 40 }, (_, number) => join(folder, `${number}.log`))
    for (const file of files) await writeFile(file, Buffer.alloc(2 * MiB, file))
    const log: string[] = []
    const notify = { mailTo: ['ops@example.org'], on: 'failure' } as const
    const params: BackupGuests = { vmids: [100], storage: 'vault', mode: 'stop', notify }
    // Another process: this one writes nothing while it reads.
    const appends = 'cd "$0" && while :; do for file in *; do printf x >> "$file"; done; done'
    const writer = spawn('sh', ['-c', appends, folder])
    try {
      await perform(backupGuests, params, { ...world.deps, host: mail.host }, memoryJournal(), {
        task,
        log: (line) => log.push(line),
        warn: (line) => log.push(`WARN: ${line}`),
      })
    } finally {
      writer.kill('SIGKILL')
    }
    const text = log.join('\n')
    const said =
      /^WARN: rootfs: (\d+) files were written to while being read, and kept in part as before that and in part as after it$/m
    const count = Number(said.exec(text)?.[1])
    assert.ok(count > 10, text)
    assert.equal(text.match(/^INFO: rootfs: written to: \/srv\/logs\/\d+\.log$/gm)?.length, 10)
    assert.match(text, new RegExp(`^INFO: rootfs: written to: and ${count - 10} more$`, 'm'))
    const [told] = mail.received
    assert.match(told?.headers.subject ?? '', /: successful, with a hint$/)
    assert.match(
      told?.text ?? '',
      new RegExp(
        `^VM 100: hint, ${count} files were written to while being read.*: /srv/logs/\\d+\\.log, .* and ${count - 5} more$`,
        'm',
      ),
    )
  })
})
