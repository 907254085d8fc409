/** Mails of the node, through a real mail system, as they arrive. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { mailSystem, sender } from '../../../test/fixtures/mail-system.ts'
import { sendMail } from './sendmail.ts'

suite('a mail of the node', () => {
  test('arrives whole, at all it is for, from whom the mail system says sends it', async () => {
    await using mail = await mailSystem()
    const to = Array.from({ length: 50 }, (_, number) => `operations-${number}@department.example.org`)
    const subject = `backup on lab: FAILED ${'バックアップ失敗😀'.repeat(30)}`
    const kept = Array.from(subject).slice(0, 200).join('')
    const text = `${subject}\n\nVM 100: FAILED, ディスク「データ」が読めません\n.\nFrom here on\n${'x'.repeat(5_000)}\n`
    await sendMail(mail.host, { node: 'lab', to, subject, text })
    const [one, ...others] = mail.received
    assert.ok(one && others.length === 0)
    assert.deepEqual([one.from, one.to, one.named, one.defects], [sender, to, to, []])
    const { headers } = one
    assert.deepEqual(one.text.replaceAll('\r\n', '\n'), text)
    assert.equal(headers.subject, kept)
    assert.equal(headers.from, sender)
    assert.ok(Math.abs(Date.now() - Date.parse(headers.date ?? '')) < 60_000)
    assert.match(headers['message-id'] ?? '', /^<[^@\s]+@lab>$/)
    assert.deepEqual(
      [headers['mime-version'], headers['content-type'], headers['auto-submitted']],
      ['1.0', 'text/plain; charset="utf-8"', 'auto-generated'],
    )
    for (const line of one.raw.split('\r\n')) assert.ok(line.length <= 78 && /^[\x20-\x7e]*$/.test(line), line)
  })

  test('is no place for headers of others', async () => {
    await using mail = await mailSystem()
    await sendMail(mail.host, { node: 'lab', to: ['a@example.org'], subject: 'one\r\nBcc: b@example.org', text: 'x' })
    assert.deepEqual(
      mail.received.map(({ to, headers }) => [to, headers.subject, headers.bcc]),
      [[['a@example.org'], 'one Bcc: b@example.org', undefined]],
    )
  })

  test('that the mail system cannot hand over fails in its words, with the cause', async () => {
    await using mail = await mailSystem()
    mail.refuse('550 5.1.1 no such person here')
    await assert.rejects(
      sendMail(mail.host, { node: 'lab', to: ['nobody@example.org'], subject: 's', text: 't' }),
      (fault) => isFault(fault, 'failed') && /no such person here/.test(fault.message),
    )
    assert.equal(mail.received.length, 0)
  })
})
