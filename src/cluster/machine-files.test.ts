import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { systemRandom } from '#base/random.ts'
import { MachineFiles, parseResolver, printResolver } from './machine-files.ts'

async function place() {
  const root = await mkdtemp(join(tmpdir(), 'hako-machine-'))
  await mkdir(join(root, 'etc'))
  return {
    root,
    files: new MachineFiles({ root, isOwn: true, random: systemRandom }),
    read: (name: string) => readFile(join(root, 'etc', name), 'utf8'),
    [Symbol.asyncDispose]: () => rm(root, { recursive: true }),
  }
}

test('the time zone is where the machine looks for it, and no other is taken', async () => {
  await using at = await place()
  assert.equal(await at.files.timeZone(), 'UTC')
  await at.files.setTimeZone('Europe/Vienna')
  assert.equal(await at.files.timeZone(), 'Europe/Vienna')
  assert.match(await readlink(join(at.root, 'etc/localtime')), /usr\/share\/zoneinfo\/Europe\/Vienna$/)
  assert.equal(await at.read('timezone'), 'Europe/Vienna\n')
  for (const wrong of ['Mars/Olympus', '../../etc/passwd', 'Europe', '']) {
    await assert.rejects(at.files.setTimeZone(wrong), /Parameter verification failed/)
  }
  assert.equal(await at.files.timeZone(), 'Europe/Vienna')
})

test('name servers are replaced, what else the file says stays', async () => {
  await using at = await place()
  await writeFile(join(at.root, 'etc/resolv.conf'), '# ours\nnameserver 10.0.0.1\noptions edns0\ndomain old.example\n')
  assert.deepEqual(await at.files.nameServers(), { servers: ['10.0.0.1'], search: 'old.example' })
  await at.files.setNameServers({ search: 'example.org', servers: ['10.0.0.2', '2001:db8::1'] })
  assert.equal(
    await at.read('resolv.conf'),
    'search example.org\nnameserver 10.0.0.2\nnameserver 2001:db8::1\n# ours\noptions edns0\n',
  )
})

test('a file that is a link to what another program writes is left to that program', async () => {
  await using at = await place()
  await symlink('../run/systemd/resolve/stub-resolv.conf', join(at.root, 'etc/resolv.conf'))
  await assert.rejects(at.files.setNameServers({ servers: ['10.0.0.2'] }), /is a link to/)
})

test('what is written is what is read, and writing it again changes nothing', () => {
  const wanted = fc.record({
    search: fc.constantFrom('example.org', 'a.example b.example'),
    servers: fc.array(fc.oneof(fc.ipV4(), fc.ipV6()), { maxLength: 3 }),
  })
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom('nameserver 1.2.3.4', 'options ndots:2', '; x', 'search y')),
      wanted,
      (lines, names) => {
        const once = printResolver(lines.join('\n'), names)
        assert.deepEqual(parseResolver(once), { ...names })
        assert.equal(printResolver(once, names), once)
      },
    ),
  )
})

test('host names are written only over the file the writer has read, and only when they are host names', async () => {
  await using at = await place()
  const before = await at.files.hosts()
  await at.files.setHosts('127.0.0.1 localhost # here\n\n::1 ip6', before.digest)
  assert.equal(await at.read('hosts'), '127.0.0.1 localhost # here\n\n::1 ip6\n')
  await assert.rejects(at.files.setHosts('127.0.0.1 other', before.digest), /file changed by other user\?/)
  await assert.rejects(at.files.setHosts('localhost 127.0.0.1'), /Parameter verification failed/)
  await assert.rejects(at.files.setHosts('127.0.0.1'), /Parameter verification failed/)
  assert.equal(await at.read('hosts'), '127.0.0.1 localhost # here\n\n::1 ip6\n')
})

test('a node that shares its machine looks and does not touch', async () => {
  const files = new MachineFiles({ isOwn: false, random: systemRandom })
  assert.equal((await files.hosts()).data, await readFile('/etc/hosts', 'utf8'))
  await assert.rejects(files.setTimeZone('UTC'), /shares with others/)
  await assert.rejects(files.setHosts(''), /shares with others/)
  await assert.rejects(files.setNameServers({ servers: [] }), /shares with others/)
})
