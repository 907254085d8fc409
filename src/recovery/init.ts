/**
 * Asks the system of a container whether it is up, in the words of its own init, and judges the answer. Of a virtual
 * machine the console tells; the console of a container says little, and of many nothing at all.
 *
 * The question is a script for any shell, without a program that is not the init system's own. It prints `name=value`
 * lines. What a guest answers is not trusted further than it concerns itself.
 */

/** For `/bin/sh -c`. */
export const initQuestion = `
read -r init < /proc/1/comm && echo "init=$init"
if [ -d /run/systemd/system ]; then
  echo "systemd=$(systemctl is-system-running 2> /dev/null)"
  echo "failed=$(systemctl list-units --failed --plain --no-legend --no-pager 2> /dev/null | while read -r unit _; do printf '%s ' "$unit"; done)"
elif [ -e /run/openrc/softlevel ]; then
  read -r level < /run/openrc/softlevel
  [ ! -e /run/openrc/rc.starting ] || level=
  echo "openrc=$level"
else
  if [ "$init" = init ] && [ -x /sbin/openrc ]; then echo starting=openrc; fi
  for comm in /proc/[0-9]*/comm; do
    read -r name 2> /dev/null < "$comm" || continue
    case $name in
      getty | agetty | mingetty | fgetty | ngetty | login) echo "getty=$name" ;;
      rc | rcS | openrc | openrc-run | runparts | run-parts) echo "starting=$name" ;;
    esac
  done
fi
`

/** Of those more is to be heard, however long it takes. */
const notYet = ['systemd', 'lxc-start']
/** An init of which nothing more can be asked is taken to be up once it has run for so long. */
export const settledMs = 2_000

export type InitVerdict =
  | { readonly state: 'up'; readonly found: string }
  | { readonly state: 'dead'; readonly why: string }
  /** With what is known so far, for whoever waits in vain. */
  | { readonly state: 'waiting'; readonly last: string }

/**
 * @param answer what the script printed; empty when nothing inside could be asked
 * @param init name of the first program, as the node sees it
 * @param sinceMs how long it runs
 */
export function judgeInit(answer: string, init: string, sinceMs: number): InitVerdict {
  const words = new Map(
    answer.split('\n').flatMap((line) => {
      const at = line.indexOf('=')
      return at > 0 ? [[line.slice(0, at), plain(line.slice(at + 1))] as const] : []
    }),
  )
  const systemd = words.get('systemd')
  if (systemd !== undefined) return judgeSystemd(systemd, words.get('failed') ?? '')
  const openrc = words.get('openrc')
  if (openrc !== undefined) {
    const isUp = !['', 'sysinit', 'boot', 'shutdown'].includes(openrc)
    return isUp
      ? { state: 'up', found: `OpenRC reached its runlevel '${openrc}'` }
      : { state: 'waiting', last: 'OpenRC still starts its services' }
  }
  const starting = words.get('starting')
  if (starting !== undefined) return { state: 'waiting', last: `'${starting}' still starts services` }
  const getty = words.get('getty')
  if (getty !== undefined) return { state: 'up', found: `'${getty}' waits for a login` }
  const name = plain(init)
  if (notYet.includes(name) || sinceMs < settledMs)
    return { state: 'waiting', last: `'${name}' runs since ${(sinceMs / 1000).toFixed(1)} s` }
  const more = words.has('init') ? 'and says no more of itself' : 'and nothing inside could be asked'
  return { state: 'up', found: `its first program '${name}' runs, ${more}` }
}

function judgeSystemd(state: string, failed: string): InitVerdict {
  switch (state) {
    case 'running':
      return { state: 'up', found: 'systemd: running' }
    case 'degraded':
      return { state: 'up', found: `systemd: degraded, failed: ${failed === '' ? 'unknown' : failed}` }
    case 'maintenance':
      return { state: 'dead', why: 'systemd is in maintenance: the rescue or emergency shell is what runs' }
    case 'stopping':
      return { state: 'dead', why: 'systemd is shutting down' }
    default:
      return { state: 'waiting', last: `systemd: ${state === '' ? 'does not answer yet' : state}` }
  }
}

/** A guest's words, as they may stand in logs and in a signed record. */
export function plain(text: string): string {
  return text
    .replaceAll(/[^\x20-\x7e]+/g, ' ')
    .trim()
    .slice(0, 200)
}
