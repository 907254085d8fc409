import { connect } from 'node:tls'
import { readFileSync } from 'node:fs'
import { benchNode } from './bench-node.ts'
await using node = await benchNode({ guests: 300 })
await node.api('POST', '/access/users', { userid: 'ann@pve', password: 'correct horse' })
const t = (await node.api('POST', '/access/users/ann@pve/token/bench', { privsep: 0 })).data as { value: string; 'full-tokenid': string }
const auth = `Authorization: PVEAPIToken=${t['full-tokenid']}=${t.value}\r\n`
const rss = () => [node.daemonPid, node.frontPid].map((pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) >> 10)
for (const [label, path, zip] of [['version', '/api2/json/version', ''], ['commands', '/api2/json/hako/commands', ''], ['commands gzip', '/api2/json/hako/commands', 'Accept-Encoding: gzip\r\n'], ['openapi', '/openapi.json', ''], ['qemu', '/api2/json/nodes/bench/qemu', '']] as const) {
  const end = performance.now() + 6000
  let n = 0
  await Promise.all(Array.from({ length: 40 }, async () => { while (performance.now() < end) await new Promise<void>((resolve) => {
    const s = connect({ host: '127.0.0.1', port: node.settings.apiPort, ca: node.certificate, servername: 'localhost' })
    s.on('error', () => {}); s.once('close', () => resolve()); s.on('data', () => {})
    s.once('secureConnect', () => { n++; s.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n${zip}${auth}\r\n`.repeat(6)); setTimeout(() => s.destroy(), 60) })
  }) }))
  console.log(label, 'connections', n, 'RSS daemon, front', rss())
}
