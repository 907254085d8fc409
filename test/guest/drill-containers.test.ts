/** What a drill says of backups of containers: asked inside the restored one, which has nothing of the node. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { waitFor } from '#base/clock.ts'
import { machine } from '#host/exec.ts'
import { mountPoints } from '#host/disks/mount.ts'
import { verifyEvidence } from '#recovery/evidence.ts'
import type { KeptDrill } from '#recovery/service.ts'
import { parseUpid } from '#tasks/upid.ts'
import { ownBridge } from '../../src/settings.ts'
import { writeProgramTemplate, writeTemplate } from '../fixtures/containers/template.ts'
import { evidenceFile, nodeUnderTest, type TestNode } from '../node-under-test.ts'

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')
const probes = (text: string) => ({
  probe0: `http,path=/known,sha256=${sha256(text)}`,
  probe1: 'tcp,port=80',
  probe2: `file,path=/srv/more/known,sha256=${sha256(text)}`,
  probe3: 'exec,path=/bin/alone,contains=nothing%20of%20the%20node',
})

/** Says what there is of the node, and of its limits. */
const alone = `#!/bin/sh
[ ! -e /bound/mark ] || { echo "a folder of the node is here"; exit 1; }
[ ! -e /dev/loop-control ] || { echo "a device of the node is here"; exit 1; }
grep -q '^MemTotal: *65536 kB' /proc/meminfo || { cat /proc/meminfo; exit 1; }
[ "$(hostname)" = first ] || { hostname; exit 1; }
echo "nothing of the node"
`

/** A web server, somebody who could be logged in with, and a program that does not end. */
const inside = `
echo 'httpd -h /www' >> /etc/rcS
echo '::respawn:/bin/login' >> /etc/inittab
for name in login wait; do printf '#!/bin/sh\\nsleep 100000\\n' > /bin/$name; done
chmod 755 /bin/alone /bin/login /bin/wait
`

suite('drills of containers', { timeout: 300_000 }, () => {
  let node: TestNode
  let lxc: string
  let mark: string
  before(async () => {
    node = await nodeUnderTest()
    lxc = `/nodes/${node.settings.node}/lxc`
    const local = join(node.settings.stateDir, 'storage/local')
    mark = join(node.settings.stateDir, 'hooked')
    const bound = join(node.settings.stateDir, 'bound')
    for (const folder of [join(local, 'template/cache'), join(local, 'snippets'), bound]) {
      await mkdir(folder, { recursive: true })
    }
    await writeFile(join(bound, 'mark'), '')
    await writeFile(join(local, 'snippets/hook'), `#!/bin/sh\necho "$1 $2" >> ${mark}\n`, { mode: 0o755 })
    await writeTemplate(join(local, 'template/cache/busybox.tar.gz'))
    await node.task(
      await node.api('POST', lxc, {
        vmid: '100',
        ostemplate: 'local:vztmpl/busybox.tar.gz',
        hostname: 'first',
        memory: '64',
        swap: '0',
        cores: '1',
        rootfs: 'local:0',
        mp0: 'local:1,mp=/srv/more,backup=1',
        mp1: `${bound},mp=/bound`,
        dev0: '/dev/loop-control',
        hookscript: 'local:snippets/hook',
        net0: `name=eth0,bridge=${ownBridge(node.settings)},ip=10.77.3.9/24,gw=10.77.3.1,host-managed=1`,
        start: '1',
      }),
    )
    await sh('cat > /bin/alone', alone)
    await sh(inside)
  })
  after(() => node[Symbol.asyncDispose]())

  const sh = async (script: string, input = '') => {
    const path = `/hako/containers/${node.settings.node}/100/exec`
    const ran = (await node.api('POST', path, { command: ['/bin/sh', '-c', script], 'input-data': input })) as {
      exitcode: number
      'out-data': string
      'err-data': string
    }
    assert.equal(ran.exitcode, 0, `${script}: ${ran['out-data']}${ran['err-data']}`)
    return ran['out-data'].trimEnd()
  }
  const write = (text: string) =>
    sh('for file in /www/known /srv/more/known; do printf %s "$0" > $file; done'.replace('$0', text))
  const backup = async () =>
    node.task(
      await node.api('POST', `/nodes/${node.settings.node}/vzdump`, { vmid: '100', storage: 'local' }),
      /^(OK|WARNINGS: 1)$/,
    )
  const drill = async (params: Record<string, string>, expected: RegExp): Promise<KeptDrill> => {
    const { log } = await node.task(await node.api('POST', '/hako/drills', { vmid: '100', ...params }), expected)
    const [, scratch = ''] = /scratch guest (\d+)/.exec(log) ?? []
    assert.ok(log.includes(`scratch guest ${scratch} removed, with its volumes`), log)
    const [newest] = (await node.api('GET', '/hako/drills')) as KeptDrill[]
    assert.ok(newest)
    return newest
  }

  test('a good backup is proven to L6 with the content of its restore point, and nothing stays', async () => {
    await write('before')
    await backup()
    await write('after')
    const before = await things(node)
    const hooked = await readFile(mark, 'utf8')

    const kept = await drill({ level: 'L6', ...probes('before') }, /^OK$/)

    assert.equal(kept.reached, 'L6')
    assert.match(
      kept.quote,
      /^CT 100 proven to L6: restored, booted and answering in \d\d:\d\d\.\d; data from \d\d:\d\d:\d\d before now$/,
    )
    assert.deepEqual(Object.keys(kept.phases).toSorted(), ['application', 'boot', 'ready', 'write'])
    assert.deepEqual(await things(node), before)
    assert.equal(await sh('cat /www/known /srv/more/known'), 'afterafter')
    assert.equal(await readFile(mark, 'utf8'), hooked, 'its hook script ran')
  })

  test('its evidence shows the trees as they were backed up, and verifies offline', async () => {
    const [kept] = (await node.api('GET', '/hako/drills')) as KeptDrill[]
    assert.ok(kept)
    assert.equal(kept.kind, 'lxc')
    const trees = JSON.parse(await evidenceFile(kept.evidence, 'trees.json')) as { name: string; digest: string }[]
    assert.deepEqual(
      trees.map(({ name }) => name),
      ['rootfs', 'mp0'],
    )
    for (const { digest } of trees) assert.match(digest, /^[0-9a-f]{64}$/)
    const config = JSON.parse(await evidenceFile(kept.evidence, 'guest-config.json')) as Record<string, string>
    assert.deepEqual(
      ['mp1', 'dev0', 'hookscript'].filter((name) => config[name] !== undefined),
      [],
    )
    assert.match(await evidenceFile(kept.evidence, 'environment.json'), /"lxc": "\d/)
    const key = await readFile(join(node.settings.stateDir, 'keys/evidence.pub'), 'utf8')
    assert.deepEqual((await verifyEvidence(kept.evidence, key)).complaints, [])
  })

  test('content that is not that of the restore point reaches L5, not L6', async () => {
    const kept = await drill({ level: 'L6', ...probes('after') }, /reached L5 of L6; L6 failed: http \/known: content/)
    assert.equal(kept.recoveryTimeMs, undefined)
  })

  for (const moment of ['L1 ok', 'L4 ok']) {
    test(`a drill that is killed after ${moment.slice(0, 2)} leaves nothing`, async () => {
      const before = await things(node)
      const waits = { level: 'L6', probe0: 'exec,path=/bin/wait' }
      const upid = String(await node.api('POST', '/hako/drills', { vmid: '100', ...waits }))
      const log = async () => {
        const path = `/nodes/${node.settings.node}/tasks/${encodeURIComponent(upid)}/log`
        return ((await node.api('GET', path)) as { t: string }[]).map(({ t }) => t).join('\n')
      }
      await waitFor(async () => (await log()).includes(moment), { what: moment, timeoutMs: 60_000, everyMs: 5 })
      process.kill(parseUpid(upid).pid, 'SIGKILL')
      await node.task(upid, /./)
      const isAsBefore = async () => isDeepStrictEqual(await things(node), before)
      await waitFor(isAsBefore, { what: 'everything gone', timeoutMs: 30_000 }).catch(async () =>
        assert.deepEqual(await things(node), before),
      )
    })
  }

  test('a container of one program and no shell is proven by the port it listens on, and to L3 without one', async () => {
    const template = join(node.settings.stateDir, 'storage/local/template/cache/one.tar')
    await writeProgramTemplate(template)
    const params = { vmid: '101', ostemplate: 'local:vztmpl/one.tar', rootfs: 'local:0', ostype: 'unmanaged' }
    const bridge = ownBridge(node.settings)
    await node.task(
      await node.api('POST', lxc, {
        ...params,
        entrypoint: '/bin/httpd -f -p 8080 -h /www',
        net0: `name=eth0,bridge=${bridge},ip=10.77.4.9/24,host-managed=1`,
      }),
    )
    await node.task(await node.api('POST', `/nodes/${node.settings.node}/vzdump`, { vmid: '101', storage: 'local' }))
    const probe0 = `http,path=/known,port=8080,sha256=${sha256('of one program')}`
    await drill({ vmid: '101', level: 'L6', probe0 }, /^OK$/)
    await node.api('PUT', `${lxc}/101/config`, { entrypoint: '/bin/sleep 1000' })
    await node.task(await node.api('POST', `/nodes/${node.settings.node}/vzdump`, { vmid: '101', storage: 'local' }))
    const without = { vmid: '101', level: 'L4', 'boot-timeout': '6' }
    await drill(without, /NOT proven: reached L3 of L4; L4 failed: it has no shell .* and nothing inside listened/)
    await node.task(await node.api('DELETE', `${lxc}/101`))
  })

  test('a container whose init ends at once reaches L2, not L3, and its last words are told', async () => {
    await sh(`rm /sbin/init; printf '#!/bin/sh\necho gives up; exit 1\n' > /sbin/init; chmod 755 /sbin/init`)
    await backup()
    await drill({ level: 'L5' }, /NOT proven: reached L2 of L5; L3 failed: the container ended .*gives up/)
  })
})

/** What exists on the machine and in the node's store: the same before and after a drill. */
async function things(node: TestNode): Promise<object> {
  const host = machine()
  const own = (text: string) =>
    text
      .split('\n')
      .filter((line) => line.includes(node.settings.instance))
      .toSorted()
  const output = async (...argv: [string, ...string[]]) => own((await host.run(argv, { okCodes: [0, 1] })).stdout)
  const guests = (await node.api('GET', '/cluster/resources', { type: 'vm' })) as { vmid: number }[]
  const volumes = (await node.api('GET', `/nodes/${node.settings.node}/storage/local/content`, {})) as {
    volid: string
    content: string
  }[]
  return {
    guests: guests.map(({ vmid }) => vmid),
    volumes: volumes.filter(({ content }) => content === 'rootdir').map(({ volid }) => volid),
    links: (await output('ip', '-brief', 'link')).map((line) => line.split(/\s/)[0]),
    netns: await output('ip', 'netns', 'list'),
    mounts: (await mountPoints()).filter((path) => path.includes(node.settings.instance)),
    monitors: (await output('ps', '-eo', 'args')).filter((line) => /lxc-start|\[lxc monitor\]/.test(line)),
    groups: (await output('find', '/sys/fs/cgroup', '-maxdepth', '4', '-name', 'lxc-99*')).length,
    runDirs: (await Promise.all(['guests', 'mounts'].map((name) => readdir(join(node.settings.runDir, name)))))
      .flat()
      .filter((name) => /99\d{7}/.test(name)),
  }
}
