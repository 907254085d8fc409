/** One backup of a tree into a datastore, as a process of its own: what `bench/file-backup.ts` measures. */
import { systemClock } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { openDatastore } from '#datastore/datastore.ts'
import { FolderPlace } from '#datastore/places/folder-place.ts'
import { treeSource } from '#datastore/tree/source.ts'
import { secret } from '../test/fixtures/sealed-datastore.ts'

const [path = '', root = '', time = '0'] = process.argv.slice(2)
const deps = { clock: systemClock, random: systemRandom, log: silentLog }
const datastore = await openDatastore(new FolderPlace(path, systemRandom, { isAlone: true }), deps)
const open = await datastore.unlock(secret)
await using writer = await open.begin({ namespace: '', type: 'ct', id: '100', time: 1_795_000_000 + Number(time) })
await writer.addTree('rootfs', treeSource({ root }))
await writer.commit()
