/**
 * Restores a container as a scratch guest: its file trees as volumes of the scratch id, its configuration cut down to
 * what may start beside the original.
 */
import { asVmid } from '#base/ids.ts'
import { humanSize } from '#base/bytes.ts'
import type { BackupReader } from '#datastore/restore/reader.ts'
import { restoreTree } from '#datastore/tree/restore.ts'
import { hostnameOf, type Options } from '#guests/config.ts'
import { idMapOf } from '#guests/lxc/idmap.ts'
import { mountsOf, wishOf } from '#guests/lxc/mountpoint.ts'
import { storedOptions } from '../backup/guest-conf.ts'
import { planContainer } from '../guest/container-plan.ts'
import { makeMounts } from '../guest/container-volumes.ts'
import type { ClimbContext, RestoredScratch, RestoredTreeFacts } from './drill-facts.ts'
import { compareTree, treeDigestKind } from './restored-tree.ts'

/** Options that reach beyond the container, or would act on the original. */
const leftOut: readonly RegExp[] = [
  /^hookscript$/,
  /^onboot$/,
  /^startup$/,
  /^protection$/,
  // Devices of the node.
  /^dev\d+$/,
]

export async function restoreContainer(context: ClimbContext, reader: BackupReader): Promise<RestoredScratch> {
  const { params, deps, done, task, log } = context
  const { guest } = done.point
  const vmid = asVmid(done.point.scratch)
  const stored = await storedOptions(reader)
  const trees = new Map(reader.manifest.trees.map(({ name, dataBytes }) => [name, dataBytes]))
  // As in a restore, what root alone may set comes back to root alone.
  const isRoot = task.user === 'root@pam'
  const plan = planContainer(
    { options: scratchContainer(stored, guest, log), trees },
    { storage: params.storage, isRoot, log, warn: log },
  )
  const { storage, host } = deps
  const asked = { ...plan.options, ...plan.wishes }
  const made = await makeMounts(asked, Object.keys(plan.wishes), { vmid, storage, host, log })
  const config = { ...plan.options, ...made }
  const began = deps.clock.monotonic()
  const parts = await fill(context, reader, config, plan.trees)
  const write = Math.round(deps.clock.monotonic() - began)
  await deps.guests.writeConfig(vmid, config, { owner: task.upid })
  return {
    name: stored.hostname ?? null,
    toldName: hostnameOf(stored, Number(guest.split('/')[1])),
    config: withoutSecrets(config),
    parts,
    // A tree is read, checked and written in one go.
    phases: { write },
  }
}

async function fill(
  { deps, done, progress, signal, log }: ClimbContext,
  reader: BackupReader,
  config: Options,
  names: readonly string[],
): Promise<RestoredTreeFacts[]> {
  const idMap = idMapOf(config)
  const parts: RestoredTreeFacts[] = []
  const filled = Object.fromEntries(names.map((name) => [name, config[name] ?? '']))
  await deps.guests.withVolumes(asVmid(done.point.scratch), filled, async (places) => {
    for (const [at, name] of names.entries()) {
      const target = places[name] ?? ''
      const onProgress = ({ fraction }: { readonly fraction: number }) =>
        progress(`write ${name}`, (at + fraction) / names.length)
      const restored = await restoreTree(reader, name, { target, idMap, signal, onProgress })
      const { entries, files, writtenBytes, leftOut: devices, attributesLeftOut } = restored
      log(`${name}: ${files} files restored, ${humanSize(writtenBytes)}`)
      if (devices > 0) log(`${name}: ${devices} device(s) left out: a container of its own user namespace has none`)
      const tree = reader.tree(name)
      const hasAttributes = attributesLeftOut === 0
      const digest = await compareTree(tree, { target, idMap, hasAttributes, signal })
      const { digest: catalogue } = tree.facts
      parts.push({ name, entries, sizeBytes: writtenBytes, digest, digestKind: treeDigestKind, catalogue })
    }
  })
  return parts
}

/**
 * What a copy of the container may start with. Folders of the node are none of its volumes, and a drill gives it
 * nothing of the node. MAC addresses, host name and addresses stay: it is to find itself as it was, on a network on
 * which nobody else has the same.
 */
export function scratchContainer(options: Options, guest: string, log: (line: string) => void): Options {
  const folders = mountsOf(options).flatMap((mount) => (wishOf(mount).kind === 'path' ? [mount.name] : []))
  const gone = Object.keys(options).filter(
    (name) => folders.includes(name) || leftOut.some((pattern) => pattern.test(name)),
  )
  if (gone.length > 0) log(`not in the drill: ${gone.toSorted().join(', ')}`)
  const kept = Object.entries(options).filter(([name]) => !gone.includes(name))
  return { ...Object.fromEntries(kept), hostname: `drill-${guest.replace('/', '-')}` }
}

/** Variables of its programs often are passwords; evidence says which there were. */
function withoutSecrets(options: Options): Options {
  const { env } = options
  if (env === undefined) return options
  const names = env.split('\0').map((variable) => variable.split('=', 1)[0] ?? '')
  return { ...options, env: names.filter(Boolean).join(' ') }
}
