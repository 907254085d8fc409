import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault } from '#base/fault.ts'
import { namingFullStorage } from './full.ts'

const writing = { storage: 'fast', what: 'a disk of guest 100', availableBytes: async () => 4096 }
const systemSays = (code: string) => Object.assign(new Error(`${code}: no luck`), { code })

test('whoever says that a disk is full, the fault names the storage and what is missing', async () => {
  for (const cause of [
    systemSays('ENOSPC'),
    systemSays('EDQUOT'),
    new Fault('exhausted', "no space left on the device of '/srv/x'"),
    new Fault('failed', 'qemu-img failed with exit code 1: error while writing: No space left on device'),
    new Fault('failed', 'the NBD server refused write of 512 bytes at 0: no space left (writing to file failed)'),
  ]) {
    const failing = namingFullStorage({ ...writing, neededBytes: 8192 }, () => Promise.reject(cause))
    await assert.rejects(failing, {
      kind: 'exhausted',
      message: "no space left on storage 'fast' for a disk of guest 100: 8.0 KiB needed, 4.0 KiB available",
    })
  }
})

test('what is not known is not said, and what is only a bound is called one', async () => {
  const fail = () => Promise.reject(systemSays('ENOSPC'))
  await assert.rejects(namingFullStorage(writing, fail), / for a disk of guest 100: 4\.0 KiB available$/)
  const bounded = { ...writing, neededBytes: 1024, isUpperBound: true }
  await assert.rejects(namingFullStorage(bounded, fail), /: up to 1\.0 KiB needed, 4\.0 KiB available$/)
})

test('a storage with room for all of it is not blamed for another disk', async () => {
  const elsewhere = new Fault('exhausted', "no space left on the device of '/var/lib/x'")
  const fits = { ...writing, neededBytes: 4096, isUpperBound: true }
  await assert.rejects(
    namingFullStorage(fits, () => Promise.reject(elsewhere)),
    (error) => error === elsewhere,
  )
})

test('other failures, and those that name whose disk it is, stay as they are', async () => {
  for (const cause of [
    systemSays('EIO'),
    new Fault('exhausted', "no space left for the store '/var/lib/x'"),
    new Fault('exhausted', "not enough space on storage 'slow' for it: 2 B needed, 1 B available"),
  ]) {
    await assert.rejects(
      namingFullStorage(writing, () => Promise.reject(cause)),
      (error) => error === cause,
    )
  }
})
