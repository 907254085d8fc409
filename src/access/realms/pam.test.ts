// Makes and removes a real system user, so it needs root, and pamtester with the machine's own PAM stack.
import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { Fault, isFault } from '#base/fault.ts'
import { password as somePassword, systemRandom } from '#base/random.ts'
import { machine } from '#host/exec.ts'
import type { Argv, Host, RunOptions } from '#host/host.ts'
import { PamRealm } from './pam.ts'

const host = machine()
const realm = new PamRealm({ host })

async function systemUser(t: TestContext): Promise<{ name: string; password: string }> {
  const name = `hkpam${process.pid}`
  const password = `${somePassword(systemRandom)} "ü$\\'`
  await host.run(['useradd', '--no-create-home', '--shell', '/usr/sbin/nologin', name])
  t.after(() => host.run(['userdel', name]))
  await host.run(['chpasswd'], { input: `${name}:${password}\n` })
  return { name, password }
}

test('the password of a system user is right as long as the system says so', async (t) => {
  const { name, password } = await systemUser(t)
  await t.test('the right one is right, another is wrong', async () => {
    assert.ok(await realm.verify(name, password))
    assert.ok(!(await realm.verify(name, `${password}x`)))
    assert.ok(!(await realm.verify(name, '')))
  })
  await t.test('an expired account is refused', async () => {
    await host.run(['chage', '--expiredate', '1970-01-02', name])
    assert.ok(!(await realm.verify(name, password)))
    await host.run(['chage', '--expiredate', '-1', name])
    assert.ok(await realm.verify(name, password))
  })
  await t.test('a password that must be changed first is refused', async () => {
    await host.run(['chage', '--lastday', '0', name])
    assert.ok(!(await realm.verify(name, password)))
    await host.run(['chage', '--lastday', '2026-01-01', name])
  })
  await t.test('a locked account is refused', async () => {
    await host.run(['usermod', '--lock', name])
    assert.ok(!(await realm.verify(name, password)))
    await host.run(['usermod', '--unlock', name])
  })
  await t.test('an account without a password opens with no password at all', async () => {
    await host.run(['passwd', '--delete', name])
    assert.ok(!(await realm.verify(name, '')))
    assert.ok(!(await realm.verify(name, 'anything')))
  })
})

test('whoever is no system user is refused', async () => {
  assert.ok(!(await realm.verify('nobody-of-this-name', 'anything')))
})

/** Records what is run and answers as the machine would. */
function recorder(answer: (argv: Argv) => number): { host: Host; ran: { argv: Argv; options: RunOptions }[] } {
  const ran: { argv: Argv; options: RunOptions }[] = []
  const recording: Host = {
    run: async (argv, options = {}) => {
      ran.push({ argv, options })
      return { code: answer(argv), stdout: '', stderr: '' }
    },
  }
  return { host: recording, ran }
}

test('a password goes to standard input and never into arguments or the environment', async () => {
  const { host: recording, ran } = recorder(() => 0)
  assert.ok(await new PamRealm({ host: recording }).verify('root', 'open sesame'))
  assert.doesNotMatch(JSON.stringify(ran.map(({ argv, options }) => [argv, options.env])), /sesame/)
  assert.equal(ran.at(-1)?.options.input, 'open sesame\n')
})

test('names and passwords that would mean something else to a program are refused before one runs', async () => {
  const { host: recording, ran } = recorder(() => 0)
  const careful = new PamRealm({ host: recording })
  for (const name of ['-v', '', 'a b', 'a/b', 'ab\n', '../x', 'x'.repeat(40)]) {
    assert.ok(!(await careful.verify(name, 'x')), name)
  }
  for (const password of ['', 'a\nb', 'a\0b', 'a\r']) assert.ok(!(await careful.verify('root', password)))
  assert.deepEqual(ran, [])
})

test('a missing program is named, with what to do', async () => {
  const lacking: Host = {
    run: async ([program]) => {
      if (program === 'getent') return { code: 0, stdout: '', stderr: '' }
      throw new Fault('missing', `the program '${program}' is not installed`)
    },
  }
  await assert.rejects(new PamRealm({ host: lacking }).verify('root', 'x'), (error) => {
    assert.ok(isFault(error, 'unavailable'))
    assert.match(error.remedy ?? '', /apt install pamtester/)
    return true
  })
})
