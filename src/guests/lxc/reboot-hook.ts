/**
 * What LXC runs between the end of a container that reboots and its next start.
 *
 * LXC makes the control groups of a container anew, and gives up when one of them is still there. A command that is run
 * inside joins the groups a moment before it is one of the container's own processes: when the container reboots in that
 * moment the command holds them, the container does not come back, and nobody has stopped it.
 */

/** @param groups directories, of names of our own */
export function rebootHook(groups: readonly string[]): string {
  return `#!/bin/sh
[ "$LXC_TARGET" = reboot ] || exit 0
PATH=/usr/sbin:/usr/bin:/sbin:/bin
exec 2> /dev/null
for round in $(seq 200); do
  left=
  for group in ${groups.map((group) => `'${group}'`).join(' ')}; do
    [ -d "$group" ] || continue
    find "$group" -name cgroup.procs -exec cat {} + | while read -r pid; do kill -9 "$pid"; done
    find "$group" -depth -type d -exec rmdir {} ';'
    [ ! -d "$group" ] || left="$group"
  done
  [ -n "$left" ] || exit 0
  sleep 0.05
done
exit 0
`
}
