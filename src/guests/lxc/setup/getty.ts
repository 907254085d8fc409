/**
 * Where one can log in: `/dev/tty1` and on, as many as the container has. `/dev/console` is looked after by systems
 * with systemd themselves.
 */
import { ownFile, putFile, removeOwn } from './managed.ts'
import type { Tree } from './tree.ts'

const unit = 'container-getty@'
const folder = '/etc/systemd/system'
const wants = `${folder}/getty.target.wants`
const dropIn = `${folder}/${unit}.service.d/node.conf`
const mostTtys = 6

export async function setTerminals(tree: Tree, ttys: number): Promise<void> {
  for (const place of ['/usr/lib/systemd/system', '/lib/systemd/system']) {
    if (await tree.exists(`${place}/${unit}.service`)) return setUnits(tree, place, ttys)
  }
  const inittab = await tree.read('/etc/inittab')
  if (inittab !== undefined) await putFile(tree, '/etc/inittab', withTerminals(inittab, ttys))
}

/** systemd's own unit for containers looks for terminals at another place than ours have. */
async function setUnits(tree: Tree, place: string, ttys: number): Promise<void> {
  if (ttys === 0) await removeOwn(tree, dropIn)
  else await putFile(tree, dropIn, `${ownFile}\n${unitText}`)
  const wanted = Array.from({ length: ttys }, (_, index) => `${unit}${index + 1}.service`)
  for (const name of wanted) await tree.link(`${wants}/${name}`, `${place}/${unit}.service`)
  for (let number = ttys + 1; number <= mostTtys; number += 1) await tree.remove(`${wants}/${unit}${number}.service`)
}

const unitText = `[Unit]
Description=Login on /dev/tty%I
ConditionPathExists=
ConditionPathExists=/dev/tty%I

[Service]
ExecStart=
ExecStart=-/sbin/agetty --noclear --keep-baud tty%I 115200,38400,9600 linux
TTYPath=/dev/tty%I
`

/** Lines of an inittab, of the kinds of System V (`1:2345:respawn:…`) and of busybox (`tty1::respawn:…`). */
export function withTerminals(inittab: string, ttys: number): string {
  const lines = inittab.trimEnd().split('\n')
  const numberIn = (line: string) => Number(/^[^#]*getty\b.*\btty([1-9]\d?)\b/.exec(line)?.[1] ?? 0)
  const sample = lines.find((line) => numberIn(line) > 0)
  const isBusybox = sample === undefined ? !lines.some((line) => /^\w+:\d+:/.test(line)) : /^tty\d+::/.test(sample)
  const made = (number: number) =>
    isBusybox
      ? `tty${number}::respawn:/sbin/getty 38400 tty${number}`
      : `${number}:2345:respawn:/sbin/getty 38400 tty${number}`
  // Those that are there stay as somebody wrote them.
  const kept = lines.filter((line) => numberIn(line) <= ttys)
  const there = new Set(kept.map(numberIn))
  const numbers = Array.from({ length: ttys }, (_, index) => index + 1)
  const added = numbers.filter((number) => !there.has(number)).map(made)
  return `${[...kept, ...added].join('\n')}\n`
}
