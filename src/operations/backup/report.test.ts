/** Who hears how a backup job went, by mail and by a real webhook, and in what words. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '#base/clock.ts'
import { BackupOptions } from '#cluster/backup-options.ts'
import type { Host } from '#host/host.ts'
import { openMemoryStore } from '#store/memory.ts'
import { webhookListener } from '../../../test/fixtures/webhook-listener.ts'
import type { GuestOutcome } from './job-outcome.ts'
import { tell } from './report.ts'

interface Told {
  readonly outcome: string
  readonly text: string
}

const volid = 'vault:backup/vm/100/2026-11-20T10:00:00Z'
const good = { vmid: 100, volid, seconds: 1 }
const alarms = ['scsi0: the record of changes is wrong', 'scsi1: it is wrong, too']

test('who wants to hear of failures alone hears of alarms and hints as well, and not that it failed', async () => {
  assert.deepEqual(await heardOf([good]), { mails: [], told: [] })
  assert.deepEqual(await heardOf([good, { ...good, vmid: 101, alarms }]), {
    mails: [
      {
        subject: 'backup on lab: successful, with an ALARM',
        lines: [
          `VM 100: ok, ${volid}`,
          `VM 101: ok, ${volid}`,
          'VM 101: ALARM, scsi0: the record of changes is wrong',
          'VM 101: ALARM, scsi1: it is wrong, too',
        ],
      },
    ],
    told: [['successful', 'backup on lab: successful, with an ALARM (2 of 2 guests)']],
  })
  assert.deepEqual(await heardOf([{ ...good, alarms: [], hint: 'much more is new than usual' }]), {
    mails: [
      {
        subject: 'backup on lab: successful, with a hint',
        lines: [`VM 100: ok, ${volid}`, 'VM 100: hint, much more is new than usual'],
      },
    ],
    told: [['successful', 'backup on lab: successful, with a hint (1 of 1 guests)']],
  })
})

test('a guest whose backup failed tells its alarm, too', async () => {
  const { mails, told } = await heardOf([{ vmid: 100, reason: 'no space', alarms: ['scsi0: wrong'], seconds: 1 }])
  assert.deepEqual(mails, [
    {
      subject: 'backup on lab: FAILED, with an ALARM',
      lines: ['VM 100: FAILED, no space', 'VM 100: ALARM, scsi0: wrong'],
    },
  ])
  assert.deepEqual(told, [['failed', 'backup on lab: failed, with an ALARM (0 of 1 guests)']])
})

/** What comes of a job with these guests where all want to hear of failures alone. */
async function heardOf(guests: readonly GuestOutcome[]) {
  await using heard = await webhookListener<Told>()
  await using store = openMemoryStore()
  await new BackupOptions(store).change(() => ({ webhook: { url: heard.url, on: 'failure' } }))
  const mails: { subject: string; lines: string[] }[] = []
  const host: Host = {
    run: async (_, options) => {
      const [head = '', body = ''] = String(options?.input).split('\n\n')
      const words = head.matchAll(/=\?utf-8\?B\?(.*)\?=$/gm)
      const subject = [...words].map(([, word = '']) => textOf(word)).join('')
      const [title, , ...lines] = textOf(body).trimEnd().split('\n')
      assert.equal(title, subject)
      mails.push({ subject, lines })
      return { code: 0, stdout: '', stderr: '' }
    },
  }
  const settings = { fetchNetworks: ['127.0.0.1'] }
  const task = { upid: 'UPID:lab:1', user: 'root@pam', node: 'lab', startTime: 0 }
  const notify = { mailTo: ['ops@example.org'], on: 'failure' } as const
  const deps = { host, store, settings, clock: systemClock }
  const isFailed = guests.some(({ reason }) => reason !== undefined)
  const teller = { notify, deps, task, log: () => {}, signal: new AbortController().signal }
  await tell(teller, { storage: 'vault', endedMs: 0, isFailed, guests })
  return { mails, told: heard.told.map(({ outcome, text }) => [outcome, text]) }
}

const textOf = (base64: string) => Buffer.from(base64, 'base64').toString('utf8')
