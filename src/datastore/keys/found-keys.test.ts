/** Key files that others put where a datastore lies, and those of before they were signed. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { createLog } from '#base/log.ts'
import { systemRandom } from '#base/random.ts'
import { deps, disk } from '../../../test/fixtures/datastore.ts'
import {
  backUp,
  makeDatastore,
  point,
  recovery,
  restored,
  secret,
  temporaryDatastore,
} from '../../../test/fixtures/sealed-datastore.ts'
import { collectGarbage } from '../collect/garbage.ts'
import { type Datastore, openDatastore } from '../datastore.ts'
import { FolderPlace } from '../places/folder-place.ts'
import { printPoint } from '../point.ts'
import { seal, unseal } from '../sealed.ts'
import {
  firstKeyFile,
  type KeyFile,
  keyFileName,
  printKeyFile,
  withoutSlot,
  withSecrets,
  withSlot,
} from './key-file.ts'
import { newSecrets, rotated } from './keyring.ts'
import { printRecoveryKey, type SlotSecret } from './slot.ts'
import { privateOf, publicOf } from './x25519.ts'

const program = join(import.meta.dirname, '../../../docs/formats/read-datastore-v2.ts')
const way = { confirmed: false, created: 0 }

/** The place of a datastore, and what is said about it. */
async function looked(path: string): Promise<AsyncDisposable & { datastore: Datastore; said: string[] }> {
  const said: string[] = []
  const place = new FolderPlace(path, systemRandom)
  const datastore = await openDatastore(place, { ...deps, log: createLog((line) => said.push(line)) })
  return { datastore, said, [Symbol.asyncDispose]: () => place[Symbol.asyncDispose]() }
}

function shownByReader(path: string): { readonly status: number | null; readonly said: string } {
  const args = [program, path, 'show', printPoint(point(0))]
  const { status, stderr } = spawnSync(process.execPath, args, { input: `${printRecoveryKey(Buffer.alloc(32, 9))}\n` })
  return { status, said: stderr.toString() }
}

test('a key file that somebody else put is passed over and said, and everything goes on', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rr')
  await backUp(await temporary.reopen(), point(0), { scsi0: content })
  const open = await temporary.reopen()
  const { id } = open.datastore.facts
  const genuine = await readFile(join(temporary.path, keyFileName(1)), 'utf8')
  const stranger = await firstKeyFile(systemRandom, id, newSecrets(systemRandom), [{ ...way, secret }])
  const { signature: _, ...unsigned } = stranger
  const edited = Object(unseal(genuine, 'it')) as { slots: { public: string }[] }
  const { signature: _left, ...stripped } = edited as { signature?: string }
  const put: Readonly<Record<string, string | Buffer>> = {
    // Locked for our own key: whoever knows its public half can do that.
    '2': printKeyFile({ ...stranger, generation: 2 }),
    '3': printKeyFile({ ...unsigned, generation: 3 }),
    '4': genuine,
    '5': seal({ ...stripped, generation: 5 } as never),
    '6': seal({ ...edited, generation: 6, slots: edited.slots.slice(0, 1) } as never),
    '7': randomBytes(4_000),
    '8': Buffer.alloc(5_000_000),
    '99999999': '',
  }
  for (const [number, text] of Object.entries(put)) {
    await writeFile(join(temporary.path, keyFileName(Number(number))), text)
  }
  await using there = await looked(temporary.path)
  const { slot, next } = await there.datastore.keys(secret)
  assert.equal((await there.datastore.keyFile()).generation, 1)
  assert.deepEqual([slot.kind, next], ['key', 9])
  for (const number of Object.keys(put)) {
    const about = there.said.filter((line) => line.includes(keyFileName(Number(number))))
    assert.equal(about.length, 1, `${number}: ${there.said.join()}`)
    assert.match(about[0] ?? '', /passed over/)
  }
  const reader = shownByReader(temporary.path)
  assert.equal(reader.status, 0, reader.said)
  assert.match(reader.said, /keys\/00000006 is not signed by this datastore, and is passed over/)
  // All that goes by the keys: a backup, garbage, and a change of the keys, whose number nobody has taken.
  await backUp(await temporary.reopen(), point(1), { scsi0: content })
  await collectGarbage(await temporary.reopen())
  const { datastore, unlocked, keyring } = await temporary.reopen()
  await datastore.putKeyFile(withSecrets(systemRandom, unlocked, rotated(keyring.secrets, systemRandom)))
  const now = await temporary.reopen(recovery)
  assert.deepEqual([now.unlocked.file.generation, now.keyring.epoch], [9, 1])
  assert.ok((await restored(now, point(1), 'scsi0')).equals(content))
})

test('where no key file proves itself the highest is named, and what to do', async () => {
  await using temporary = await temporaryDatastore()
  const path = join(temporary.path, keyFileName(1))
  await writeFile(path, (await readFile(path, 'utf8')).replace('"confirmed":true', '"confirmed":false'))
  await assert.rejects(temporary.reopen(), /'keys\/00000001' is damaged: its digest does not match/)
  await rm(path)
  await assert.rejects(temporary.reopen(), /has no keys/)
})

/** As programs wrote them before key files were signed; `secret` and `recovery` open it. */
const ofBefore = {
  format: {
    format: 'hakobune-datastore',
    version: 2,
    id: 'a60d99d8-1eea-46b7-b1da-388b5095ae42',
    created: 1795240621,
    chunkBytes: 131072,
    signer: 'IGOdV3ZkWHV6y5AQffe08lmAuOJwJxfSNv+OfEhdzQA=',
  },
  'keys/00000001': {
    version: 2,
    datastore: 'a60d99d8-1eea-46b7-b1da-388b5095ae42',
    generation: 1,
    ring: '3TTlziNj7RQ0HrPDcEhlmdFJseO6D7aj6o5rAhrv1ettYMJulcqFF1jxxLlFY8XmBHfOTpSYgaMXuS3HPycAxjCosTIUF5Olzs8d6zL3e8uDnIy81xVHQVF6KdxFGbCu+N+kXkMPLN1kxJf3p9MkHiXuSy+m0Nqd6HA6wIxF/STs2uH+GBNWWFwcNciNmhLKLOICHXJsm3Qyh3pbOXRdhwASUg6QVrVCYpnDQ0h75BKu2exNJGE0O23IVxEKF2196HMocqYbdg==',
    slots: [
      {
        id: '34b9464b-f753-4120-967e-511b1a59aa18',
        kind: 'key',
        created: 0,
        comment: '',
        confirmed: false,
        public: 'E75P6uryBMf9M1j8nAByGIHRdCeBKCJ+xnTzf3/pe20=',
        wrapped:
          'TdzwVMVZaUB+0dEHt8xFe/KzGoqziCkOzGM7VG64IViAxyRGhi/kce7L2XwNITbINN7UMFIeGryyX6hNvV6OA8WxZN4KpQRYnXsEIPwu+Ks=',
      },
      {
        id: '9436fa1a-85db-4fac-bbbf-45cf727e368d',
        kind: 'recovery',
        created: 0,
        comment: '',
        confirmed: true,
        public: 'V9tLNZ8jrl4Ubk4lEgVnBHIlBjSMFQwUdT0Mkz0E1CE=',
        wrapped:
          'Cvam4A4mV+8GU6VKrfWWZoCgiwRvRNl/WRURJa3tFzFLxjifuhDroAeOOGZeTkPn4MqEQF/3DfC3oPZM8IZ84+O9N7ZoFeChPu4R7pPomZQ=',
      },
    ],
  },
}

async function datastoreOfBefore(): Promise<AsyncDisposable & Awaited<ReturnType<typeof makeDatastore>>> {
  const temporary = await makeDatastore(await mkdtemp(join(tmpdir(), 'hako-before-')))
  for (const [name, value] of Object.entries(ofBefore)) {
    await writeFile(join(temporary.path, name), seal(value as never))
  }
  return temporary
}

test('a key file of before they were signed opens, and the next change of keys is signed', async () => {
  await using temporary = await datastoreOfBefore()
  const content = disk('rr')
  await backUp(await temporary.reopen(), point(0), { scsi0: content })
  // Anybody could put such a file; of several a key tells which is the datastore's.
  const stranger = await firstKeyFile(systemRandom, ofBefore.format.id, newSecrets(systemRandom), [{ ...way, secret }])
  const { signature: _, ...unsigned } = stranger
  await writeFile(join(temporary.path, keyFileName(2)), printKeyFile({ ...unsigned, generation: 2 }))
  assert.ok((await restored(await temporary.reopen(recovery), point(0), 'scsi0')).equals(content))
  assert.equal(shownByReader(temporary.path).status, 0)
  const own: SlotSecret = { kind: 'key', key: Buffer.alloc(32, 3) }
  const { datastore, unlocked } = await temporary.reopen()
  const file = await withSlot(systemRandom, unlocked, { ...way, secret: own })
  await datastore.putKeyFile(file)
  assert.deepEqual([file.generation, file.signature?.length], [3, 64])
  for (const by of [own, secret, recovery]) {
    assert.ok((await restored(await temporary.reopen(by), point(0), 'scsi0')).equals(content))
  }
  await datastore.removeOldKeyFiles(file.generation)
  assert.deepEqual(await readdir(join(temporary.path, 'keys')), ['00000003'])
  // From then on one without a signature counts for nothing, nor does the one there is without its own.
  await writeFile(join(temporary.path, keyFileName(4)), seal({ ...ofBefore['keys/00000001'], generation: 4 } as never))
  assert.equal((await temporary.reopen()).unlocked.file.generation, 3)
  await rm(join(temporary.path, keyFileName(4)))
  const { signature: _left, ...stripped } = file as KeyFile
  await writeFile(join(temporary.path, keyFileName(3)), printKeyFile(stripped))
  await assert.rejects(temporary.reopen(), /its key is right, its seal is not/)
})

test('one of ours is no other one under another name, and whoever was let out stays out', async () => {
  await using temporary = await temporaryDatastore()
  const former: SlotSecret = { kind: 'key', key: Buffer.alloc(32, 3) }
  const first = await temporary.reopen()
  await first.datastore.putKeyFile(await withSlot(systemRandom, first.unlocked, { ...way, secret: former }))
  const second = await temporary.reopen(former)
  const secrets = rotated(second.keyring.secrets, systemRandom)
  const { unlocked, datastore } = second
  await datastore.putKeyFile(withoutSlot(systemRandom, { ...unlocked }, unlocked.slot.id, secrets))
  await assert.rejects(temporary.reopen(former), /does not open the datastore/)
  const path = (number: number) => join(temporary.path, keyFileName(number))
  await rename(path(2), path(4))
  await assert.rejects(temporary.reopen(former), /does not open the datastore/)
  // The public half of somebody else in the place of an owner's: what is locked next would be locked for them.
  const genuine = Object(unseal(await readFile(path(3), 'utf8'), 'it')) as { slots: { kind: string; public: string }[] }
  const slots = genuine.slots.map((slot) => {
    return slot.kind === 'recovery'
      ? { ...slot, public: publicOf(privateOf(Buffer.alloc(32, 4))).toString('base64') }
      : slot
  })
  await writeFile(path(5), seal({ ...genuine, generation: 5, slots } as never))
  assert.equal((await temporary.reopen(recovery)).unlocked.file.generation, 3)
})
