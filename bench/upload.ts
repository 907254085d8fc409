/**
 * An upload over TLS: what front and daemon spend on it, how much memory they hold at most, and how often its bytes
 * are written. The client is curl; what it spends is not counted.
 *
 *   node bench/upload.ts [MiB] [rounds]
 */
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { waitFor } from '#base/clock.ts'
import { benchNode } from './bench-node.ts'
import { median, row, table } from './figures.ts'
import { cpuMsOf } from './server-load.ts'

const [mebibytes = 1024, rounds = 5] = process.argv.slice(2).map(Number)

await using undo = new AsyncDisposableStack()
const node = undo.use(await benchNode())
const { api, settings, certificate } = node
const scratch = mkdtempSync('/var/tmp/hako-upload-')
undo.defer(() => rmSync(scratch, { recursive: true }))
const token = (await api('POST', '/access/users/root@pam/token/bench', { privsep: 0 })).data
const { value, 'full-tokenid': tokenid } = token as { value: string; 'full-tokenid': string }
const [file, ca, secret] = ['disc.iso', 'ca.pem', 'curl.conf'].map((name) => join(scratch, name)) as [
  string,
  string,
  string,
]
writeFileSync(ca, certificate)
writeFileSync(secret, `header = "Authorization: PVEAPIToken=${tokenid}=${value}"\n`, { mode: 0o600 })
writeFileSync(file, '')
await truncate(file, mebibytes * 2 ** 20)

const pids = { front: node.frontPid, daemon: node.daemonPid }
const storage = `/nodes/${settings.node}/storage/local`
const samples: { wallMs: number; cpuMs: number; writtenMiB: number }[] = []
for (let round = -1; round < rounds; round += 1) {
  const [began, cpu, written] = [performance.now(), total(cpuMsOf), total(writtenMiBOf)]
  const argv = ['-fsS', '-K', secret, '--cacert', ca, '--resolve', `localhost:${settings.apiPort}:127.0.0.1`]
  const url = `https://localhost:${settings.apiPort}/api2/json${storage}/upload`
  const { stdout } = await promisify(execFile)('/usr/bin/curl', [
    ...argv,
    '-F',
    'content=iso',
    '-F',
    `filename=@${file}`,
    url,
  ])
  const { data: upid } = JSON.parse(stdout) as { data: string }
  const wallMs = performance.now() - began
  await waitFor(
    async () =>
      (
        (await api('GET', `/nodes/${settings.node}/tasks/${encodeURIComponent(upid)}/status`)).data as {
          status: string
        }
      ).status === 'stopped',
    { what: 'the task', timeoutMs: 60_000 },
  )
  // The first one fills caches and does not count.
  if (round >= 0) samples.push({ wallMs, cpuMs: total(cpuMsOf) - cpu, writtenMiB: total(writtenMiBOf) - written })
  await api('DELETE', `${storage}/content/local:iso/disc.iso`)
}

const figure = (of: (sample: (typeof samples)[number]) => number) => median(samples.map(of))
table(row(`${mebibytes} MiB`, 'median'), [
  row('MiB per CPU second of the servers', (mebibytes / (figure(({ cpuMs }) => cpuMs) / 1000)).toFixed(0)),
  row('MiB per second', (mebibytes / (figure(({ wallMs }) => wallMs) / 1000)).toFixed(0)),
  row('times written', (figure(({ writtenMiB }) => writtenMiB) / mebibytes).toFixed(2)),
  ...Object.entries(pids).map(([name, pid]) => row(`peak memory of the ${name}, MiB`, peakMiBOf(pid).toFixed(0))),
])

function total(of: (pid: number) => number): number {
  return Object.values(pids).reduce((sum, pid) => sum + of(pid), 0)
}

/** What went to a disk, not to a socket. */
function writtenMiBOf(pid: number): number {
  return Number(/^write_bytes: (\d+)/m.exec(readFileSync(`/proc/${pid}/io`, 'utf8'))?.[1]) / 2 ** 20
}

function peakMiBOf(pid: number): number {
  return Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024
}
