/** Files somebody without the keys has put into a datastore: each is named as damaged, and everything else goes on. */
import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/fault.ts'
import { systemRandom } from '#base/random.ts'
import { disk } from '../../test/fixtures/datastore.ts'
import { readAlone } from '../../test/fixtures/read-alone.ts'
import { backUp, point, recovery, restored, temporaryDatastore } from '../../test/fixtures/sealed-datastore.ts'
import { collectGarbage } from './collect/garbage.ts'
import type { OpenDatastore } from './datastore.ts'
import { NameDigest } from './digests.ts'
import { mendIndex, repairIndex } from './tidy/repair.ts'
import { withWriter } from './keys/key-file.ts'
import { privateOf, publicOf } from './keys/x25519.ts'
import { packName } from './packs/pack.ts'
import { listOpened } from './points/listing.ts'
import { manifestName, printManifest } from './points/manifest.ts'
import { printPoint } from './point.ts'
import { seal, unseal } from './sealed.ts'
import { backupsHit } from './verify/hits.ts'
import { verifyDatastore } from './verify/verify-datastore.ts'
import { verifyEverything } from './verify/verify-everything.ts'

const forged = point(1)
const head = { point: forged, pointInTime: '2026-11-20T10:00:00.000Z', finished: forged.time }
const nothing = { disks: [], trees: [], files: [], facts: {} }
/** No public keys, or one with which every secret is the same. */
const salts = [Buffer.alloc(0), Buffer.alloc(31, 1), Buffer.alloc(33, 1), Buffer.alloc(32)]

/** Signed anew by whoever has that keyring; without one as it was. */
function withSalt(text: string, salt: Buffer, signer?: OpenDatastore): string {
  const { signature, ...signed } = Object(unseal(text, 'it')) as { signature: string }
  const value = { ...signed, inbox: true, salt: salt.toString('base64') }
  const by = signer?.keyring.sign(JSON.stringify(value)).toString('base64')
  return seal({ ...value, signature: by ?? signature })
}

async function onlyForgedIsDamaged(open: OpenDatastore): Promise<void> {
  const listed = await listOpened(open.datastore, open.keyring)
  const name = printPoint(forged)
  const damaged = listed.filter(({ damage }) => damage !== undefined)
  assert.deepEqual(
    damaged.map((one) => printPoint(one.point)),
    [name],
  )
  assert.match(damaged[0]?.damage ?? '', new RegExp(`the manifest of backup ${name} `))
  await assert.rejects(verifyDatastore(open), (fault) => isFault(fault, 'damaged') && fault.message.includes(name))
  const verdicts = await Array.fromAsync(verifyEverything(open))
  const bad = verdicts.filter(({ damage }) => damage !== undefined).map((one) => one.point && printPoint(one.point))
  assert.deepEqual(bad, [name])
  assert.deepEqual(await backupsHit(open, new Set()), [name])
}

test('a manifest made without keys is damaged whatever it is sealed with, and lists, checks and backups go on', async () => {
  await using temporary = await temporaryDatastore()
  await backUp(await temporary.reopen(), point(0), { scsi0: disk('r') })
  for (const [number, salt] of salts.entries()) {
    const open = await temporary.reopen()
    const { place } = open.datastore
    const text = printManifest(open.keyring, systemRandom, head, nothing)
    await place.replace(manifestName(forged), Buffer.from(withSalt(text, salt)))
    await onlyForgedIsDamaged(open)
    const next = point(2 + number)
    const content = disk('r')
    await backUp(open, next, { scsi0: content })
    assert.ok((await restored(open, next, 'scsi0')).equals(content))
  }
})

test('a manifest that a host that only adds has signed, and sealed with nothing, is damaged, and it alone', async () => {
  await using temporary = await temporaryDatastore()
  const own = Buffer.alloc(32, 5)
  const admin = await temporary.reopen()
  const way = { secret: { kind: 'key', public: publicOf(privateOf(own)) } as const, confirmed: true, created: 0 }
  await admin.datastore.putKeyFile(await withWriter(systemRandom, admin.unlocked, way))
  await backUp(await temporary.reopen(), point(0), { scsi0: disk('r') })
  const host = await temporary.reopen({ kind: 'key', key: own })
  const text = printManifest(host.keyring, systemRandom, head, nothing)
  for (const salt of salts) {
    const open = await temporary.reopen()
    await open.datastore.place.replace(manifestName(forged), Buffer.from(withSalt(text, salt, host)))
    assert.ok((await open.datastore.manifest(forged)).isSigned(open.keyring.signer))
    await onlyForgedIsDamaged(open)
  }
})

test('a pack made without keys is damaged whatever it is sealed with, and index, checks and restores go on', async () => {
  await using temporary = await temporaryDatastore()
  const content = disk('rr')
  await backUp(await temporary.reopen(), point(0), { scsi0: content })
  const pack = Buffer.alloc(88)
  pack.write('HAKOPAK3', 0, 'latin1')
  pack.writeUInt32LE(2, 12)
  pack.writeBigUInt64LE(48n, 64)
  pack.write('HAKOPEN2', 80, 'latin1')
  const digest = new NameDigest()
  digest.update(pack)
  const name = digest.hex()
  const path = join(temporary.path, packName(name))
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, pack)
  assert.deepEqual((await repairIndex(await temporary.reopen())).damaged, [name])
  assert.deepEqual((await mendIndex(await temporary.reopen()))?.damaged, [name])
  const verdicts = await Array.fromAsync(verifyEverything(await temporary.reopen()))
  assert.deepEqual(
    verdicts.flatMap((one) => (one.point && !one.damage ? [printPoint(one.point)] : [])),
    [printPoint(point(0))],
  )
  assert.ok((await restored(await temporary.reopen(), point(0), 'scsi0')).equals(content))
  await readAlone(temporary.path, recovery)
  assert.equal((await collectGarbage(await temporary.reopen())).removedPacks, 1)
})
